// C with OpenBLAS, one thread: bench/peers.mjs compiles it with gcc -O3 -march=native -ffast-math. bench/channel.mjs has the
// words it understands. Arguments: folder of the inputs, family of the job, f64 or f32, and the sizes as name=value.
//
// Weights in row form, x W1 and a W2; loss 1/2 |x W1 W2 - y|^2.
#include <cblas.h>
#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static const char *folder, *family;
static int words;
static char **word;

/** A size of the job. */
static double size(const char *name) {
  size_t n = strlen(name);
  for (int i = 0; i < words; i++)
    if (!strncmp(word[i], name, n) && word[i][n] == '=') return atof(word[i] + n + 1);
  return 0;
}

static void *array(size_t bytes) {
  void *p = aligned_alloc(64, (bytes + 63) / 64 * 64);
  if (!p) exit(1);
  memset(p, 0, bytes);
  return p;
}

static double *reals(size_t n) { return array(8 * n); }

/** A file of the folder; its length goes to `count`. */
static void *given(const char *name, size_t bytes, size_t *count) {
  char path[4096];
  snprintf(path, sizeof path, "%s/%s", folder, name);
  FILE *file = fopen(path, "rb");
  if (!file) exit(1);
  fseek(file, 0, SEEK_END);
  size_t n = ftell(file) / bytes;
  rewind(file);
  void *values = array(n * bytes);
  if (fread(values, bytes, n, file) != n) exit(1);
  fclose(file);
  if (count) *count = n;
  return values;
}

static double *input(const char *name) {
  char file[64];
  snprintf(file, sizeof file, "%s.f64", name);
  return given(file, 8, NULL);
}

/** xoshiro256++ */
static uint64_t state[4] = {1, 2, 3, 4};
static inline uint64_t turn(uint64_t x, int k) { return (x << k) | (x >> (64 - k)); }
static inline uint64_t bits(void) {
  uint64_t result = turn(state[0] + state[3], 23) + state[0], t = state[1] << 17;
  state[2] ^= state[0];
  state[3] ^= state[1];
  state[1] ^= state[2];
  state[0] ^= state[3];
  state[2] ^= t;
  state[3] = turn(state[3], 45);
  return result;
}
static inline int below(int n) { return ((bits() >> 32) * (uint64_t)n) >> 32; }
static double uniform(void) { return (bits() >> 11) * 0x1p-53; }

static int N, d, h, o, S;
static double eta;

/** What a check or a run has computed. */
static double *result;
static size_t results;

static double *X, *Y, *W1, *W2, *a, *e, *b;

#define PRODUCT(m, n, k, A, ta, lda, B, tb, ldb, beta, C, ldc, alpha) \
  cblas_dgemm(CblasRowMajor, ta, tb, m, n, k, alpha, A, lda, B, ldb, beta, C, ldc)
#define NO CblasNoTrans
#define YES CblasTrans

/** a = x W1, e = a W2 - y. */
static void forward(void) {
  PRODUCT(N, h, d, X, NO, d, W1, NO, h, 0, a, h, 1);
  memcpy(e, Y, 8L * N * o);
  PRODUCT(N, o, h, a, NO, h, W2, NO, o, -1, e, o, 1);
}
/** b = e W2^T. */
static void backward(void) { PRODUCT(N, h, o, e, NO, o, W2, YES, o, 0, b, h, 1); }

static void net(void) {
  X = input("X");
  Y = input("Y");
  W1 = input("weights");
  W2 = W1 + d * h;
  a = reals((size_t)N * h);
  e = reals((size_t)N * o);
  b = reals((size_t)N * h);
}

// J1, in both types
#define SGD(T, GEMM, NAME)                                                                              \
  static T *NAME##_x, *NAME##_X, *NAME##_Y, *NAME##_start, *NAME##_w;                                   \
  static T *NAME##_of(const double *from, size_t n) {                                                   \
    T *to = array(n * sizeof(T));                                                                       \
    for (size_t i = 0; i < n; i++) to[i] = from[i];                                                     \
    return to;                                                                                          \
  }                                                                                                     \
  static void NAME##_prepare(void) {                                                                    \
    NAME##_X = NAME##_of(X, (size_t)N * d);                                                             \
    NAME##_Y = NAME##_of(Y, (size_t)N * o);                                                             \
    NAME##_start = NAME##_of(W1, d * h + h * o);                                                        \
    NAME##_w = NAME##_of(W1, d * h + h * o);                                                            \
    NAME##_x = array(sizeof(T) * S * (d + 2 * h + o));                                                  \
  }                                                                                                     \
  static void NAME##_steps(T *w1, size_t steps, const uint32_t *batches) {                              \
    T *w2 = w1 + d * h, *x = NAME##_x, *ab = x + S * d, *eb = ab + S * h, *bb = eb + S * o;             \
    T c = -eta / S;                                                                                     \
    for (size_t k = 0; k < steps; k++) {                                                                \
      for (int s = 0; s < S; s++) {                                                                     \
        size_t n = batches ? batches[k * S + s] : (uint32_t)below(N);                                   \
        memcpy(x + s * d, NAME##_X + n * d, sizeof(T) * d);                                             \
        memcpy(eb + s * o, NAME##_Y + n * o, sizeof(T) * o);                                            \
      }                                                                                                 \
      GEMM(CblasRowMajor, NO, NO, S, h, d, 1, x, d, w1, h, 0, ab, h);                                   \
      GEMM(CblasRowMajor, NO, NO, S, o, h, 1, ab, h, w2, o, -1, eb, o);                                 \
      GEMM(CblasRowMajor, NO, YES, S, h, o, 1, eb, o, w2, o, 0, bb, h);                                 \
      GEMM(CblasRowMajor, YES, NO, h, o, S, c, ab, h, eb, o, 1, w2, o);                                 \
      GEMM(CblasRowMajor, YES, NO, d, h, S, c, x, d, bb, h, 1, w1, h);                                  \
    }                                                                                                   \
  }                                                                                                     \
  static void NAME##_result(const T *w) {                                                               \
    for (size_t i = 0; i < results; i++) result[i] = w[i];                                              \
  }                                                                                                     \
  static void NAME##_run(long count) {                                                                  \
    NAME##_steps(NAME##_w, count, NULL);                                                                \
    NAME##_result(NAME##_w);                                                                            \
  }                                                                                                     \
  static void NAME##_check(void) {                                                                      \
    size_t n;                                                                                           \
    uint32_t *batches = given("batches.u32", 4, &n);                                                    \
    T *w = array(sizeof(T) * results);                                                                  \
    memcpy(w, NAME##_start, sizeof(T) * results);                                                       \
    NAME##_steps(w, n / S, batches);                                                                    \
    NAME##_result(w);                                                                                   \
  }
SGD(double, cblas_dgemm, sgd64)
SGD(float, cblas_sgemm, sgd32)

// J2
static double *G, *Sigma, *mean;
static int P, whole;

static double squares(const double *row, int n) {
  double sum = 0;
  for (int i = 0; i < n; i++) sum += row[i] * row[i];
  return sum;
}

/** Tr Sigma from norms, or Sigma from the matrix of all gradients; lower triangle. */
static void noise(void) {
  forward();
  backward();
  PRODUCT(d, h, N, X, YES, d, b, NO, h, 0, mean, h, 1. / N);
  PRODUCT(h, o, N, a, YES, h, e, NO, o, 0, mean + d * h, o, 1. / N);
  if (!whole) {
    double sum = 0;
    for (long n = 0; n < N; n++)
      sum += squares(X + n * d, d) * squares(b + n * h, h) + squares(a + n * h, h) * squares(e + n * o, o);
    result[0] = sum / N - squares(mean, P);
    return;
  }
  for (long n = 0; n < N; n++) {
    double *g = G + n * P;
    for (int i = 0; i < d; i++)
      for (int j = 0; j < h; j++) *g++ = X[n * d + i] * b[n * h + j];
    for (int i = 0; i < h; i++)
      for (int j = 0; j < o; j++) *g++ = a[n * h + i] * e[n * o + j];
  }
  cblas_dsyrk(CblasRowMajor, CblasLower, CblasTrans, P, N, 1. / N, G, P, 0, Sigma, P);
  cblas_dsyr(CblasRowMajor, CblasLower, P, -1, mean, 1, Sigma, P);
}
static void noise_run(long count) {
  for (long i = 0; i < count; i++) noise();
  if (whole) result[0] = Sigma[0];
}
static void noise_check(void) {
  noise();
  if (whole) cblas_dsymv(CblasRowMajor, CblasLower, P, 1, Sigma, P, input("v"), 1, 0, result, 1);
}

// J3: v . H v by second-order jets, four products a probe
static double *z, *f, *g;

static double curvature(const double *V1, const double *V2) {
  PRODUCT(N, h, d, X, NO, d, V1, NO, h, 0, z, h, 1);
  double sum = 0;
  for (long i = 0; i < (long)N * h; i++) {
    double first = (1 - a[i] * a[i]) * z[i];
    sum -= 2 * b[i] * a[i] * first * z[i];
    z[i] = first;
  }
  PRODUCT(N, o, h, z, NO, h, W2, NO, o, 0, f, o, 1);
  PRODUCT(N, o, h, a, NO, h, V2, NO, o, 1, f, o, 1);
  PRODUCT(N, o, h, z, NO, h, V2, NO, o, 0, g, o, 1);
  for (long i = 0; i < (long)N * o; i++) sum += f[i] * f[i] + 2 * e[i] * g[i];
  return sum / N;
}
static void tanh_forward(void) {
  PRODUCT(N, h, d, X, NO, d, W1, NO, h, 0, a, h, 1);
  for (long i = 0; i < (long)N * h; i++) a[i] = tanh(a[i]);
  memcpy(e, Y, 8L * N * o);
  PRODUCT(N, o, h, a, NO, h, W2, NO, o, -1, e, o, 1);
  backward();
}
static void curvature_run(long count) {
  int probes = size("probes");
  double *v = reals(P);
  for (long i = 0; i < count; i++) {
    tanh_forward();
    double sum = 0;
    for (int k = 0; k < probes; k++) {
      for (int j = 0; j < P; j++) v[j] = bits() >> 63 ? 1 : -1;
      sum += curvature(v, v + d * h);
    }
    result[0] = sum / probes;
  }
  free(v);
}
static void curvature_check(void) {
  double *v = input("v");
  tanh_forward();
  result[0] = curvature(v, v + d * h);
}

// J4: one weighted backward pass
static double *start, *xi;

static void sde_step(const double *normals) {
  double middle = 0;
  for (int n = 0; n < N; n++) middle += normals[n] / N;
  forward();
  for (long n = 0; n < N; n++) {
    double weight = -eta / N - eta / sqrt((double)S * N) * (normals[n] - middle);
    for (int j = 0; j < o; j++) e[n * o + j] *= weight;
  }
  backward();
  PRODUCT(h, o, N, a, YES, h, e, NO, o, 1, W2, o, 1);
  PRODUCT(d, h, N, X, YES, d, b, NO, h, 1, W1, h, 1);
}
static void sde_run(long count) {
  for (long k = 0; k < count; k++) {
    for (int n = 0; n < N; n += 2) {
      double r = sqrt(-2 * log(1 - uniform())), t = 2 * M_PI * uniform();
      xi[n] = r * cos(t);
      xi[n + 1] = r * sin(t);
    }
    sde_step(xi);
  }
  memcpy(result, W1, 8 * results);
}
static void sde_check(void) {
  size_t n;
  double *normals = given("xi.f64", 8, &n);
  memcpy(start, W1, 8 * results);
  for (size_t k = 0; k < n; k += N) sde_step(normals + k);
  memcpy(result, W1, 8 * results);
  memcpy(W1, start, 8 * results);
}

// J5: blocks of 16 replicas, which the compiler vectorises, with 32-bit lanes of xoshiro128++
enum { LANES = 16 };
static double *u, *w, *pairs;
static int R;
static uint32_t lanes[4][LANES];

static inline uint32_t turn32(uint32_t x, int k) { return (x << k) | (x >> (32 - k)); }

static void ensemble(double *us, double *ws, long steps, const uint32_t *batches) {
  for (int r = 0; r < R; r += LANES) {
    double U[LANES], W[LANES];
    memcpy(U, us + r, sizeof U);
    memcpy(W, ws + r, sizeof W);
    for (long k = 0; k < steps; k++) {
      long index[LANES];
      if (batches)
        for (int l = 0; l < LANES; l++) index[l] = batches[k * R + r + l];
      else
        for (int l = 0; l < LANES; l++) {
          uint32_t drawn = turn32(lanes[0][l] + lanes[3][l], 7) + lanes[0][l], t = lanes[1][l] << 9;
          lanes[2][l] ^= lanes[0][l];
          lanes[3][l] ^= lanes[1][l];
          lanes[1][l] ^= lanes[2][l];
          lanes[0][l] ^= lanes[3][l];
          lanes[2][l] ^= t;
          lanes[3][l] = turn32(lanes[3][l], 11);
          index[l] = drawn & (N - 1);
        }
      for (int l = 0; l < LANES; l++) {
        double x = pairs[2 * index[l]], y = pairs[2 * index[l] + 1];
        double c = (U[l] * W[l] * x - y) * x * eta, following = U[l] - c * W[l];
        W[l] -= c * U[l];
        U[l] = following;
      }
    }
    memcpy(us + r, U, sizeof U);
    memcpy(ws + r, W, sizeof W);
  }
}
static void ensemble_run(long count) {
  ensemble(u, w, count, NULL);
  memcpy(result, u, 8 * R);
  memcpy(result + R, w, 8 * R);
}
static void ensemble_check(void) {
  size_t n;
  uint32_t *batches = given("batches.u32", 4, &n);
  memcpy(result, u, 8 * R);
  memcpy(result + R, w, 8 * R);
  ensemble(result, result + R, n / R, batches);
}

static double clock_ms(clockid_t clock) {
  struct timespec t;
  clock_gettime(clock, &t);
  return 1e3 * t.tv_sec + 1e-6 * t.tv_nsec;
}

int main(int count, char **argument) {
  if (count < 4) return 1;
  folder = argument[1];
  family = argument[2];
  words = count - 4;
  word = argument + 4;
  int is64 = !strcmp(argument[3], "f64");
  N = size("N"), d = size("d"), h = size("h"), o = size("o"), S = size("S"), R = size("R");
  eta = size("eta");
  whole = size("whole");
  P = d * h + h * o;
  void (*run)(long), (*check)(void);
  results = P;
  if (strcmp(family, "ensemble")) net();
  if (!strcmp(family, "sgd")) {
    run = is64 ? sgd64_run : sgd32_run;
    check = is64 ? sgd64_check : sgd32_check;
    is64 ? sgd64_prepare() : sgd32_prepare();
  } else if (!strcmp(family, "noise")) {
    run = noise_run, check = noise_check;
    mean = reals(P);
    if (whole) G = reals((size_t)N * P), Sigma = reals((size_t)P * P);
    else results = 1;
  } else if (!strcmp(family, "curvature")) {
    run = curvature_run, check = curvature_check;
    z = reals((size_t)N * h), f = reals((size_t)N * o), g = reals((size_t)N * o);
    results = 1;
  } else if (!strcmp(family, "sde")) {
    run = sde_run, check = sde_check;
    start = reals(P), xi = reals(N);
  } else {
    run = ensemble_run, check = ensemble_check;
    double *x = input("X"), *y = input("Y");
    u = input("u"), w = input("w"), pairs = reals(2 * N);
    for (int n = 0; n < N; n++) pairs[2 * n] = x[n], pairs[2 * n + 1] = y[n];
    for (int i = 0; i < 4; i++)
      for (int l = 0; l < LANES; l++) lanes[i][l] = bits();
    results = 2 * R;
  }
  result = reals(results > (size_t)P ? results : (size_t)P + 1);
  char line[256], what[16], side[64];
  while (fgets(line, sizeof line, stdin)) {
    long times = 0;
    sscanf(line, "%15s %63s %ld", what, side, &times);
    if (!strcmp(what, "prepare")) {
      printf("{}\n");
    } else if (!strcmp(what, "check")) {
      check();
      printf("{\"values\":[");
      for (size_t i = 0; i < results; i++) printf(i ? ",%.17g" : "%.17g", result[i]);
      printf("]}\n");
    } else {
      double cpu = clock_ms(CLOCK_PROCESS_CPUTIME_ID), wall = clock_ms(CLOCK_MONOTONIC);
      run(times);
      wall = clock_ms(CLOCK_MONOTONIC) - wall, cpu = clock_ms(CLOCK_PROCESS_CPUTIME_ID) - cpu;
      double sum = 0;
      for (size_t i = 0; i < results; i++) sum += result[i];
      // with -ffast-math isfinite() is true of everything, so the exponent is looked at
      uint64_t word64;
      memcpy(&word64, &sum, 8);
      if ((word64 >> 52 & 0x7ff) == 0x7ff) printf("{\"error\":\"the result is not finite\"}\n");
      else printf("{\"ms\":%.6f,\"cpuMs\":%.6f,\"checksum\":\"%.17g\"}\n", wall, cpu, sum);
    }
    fflush(stdout);
  }
  return 0;
}
