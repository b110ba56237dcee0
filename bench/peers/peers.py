"""numpy and torch, one thread. bench/channel.mjs has the words it understands.

Arguments: folder of the inputs, family of the job, f64 or f32, and the sizes as name=value.
A side is prepared by a function of the module; it returns (run, check): run(count) does `count` repetitions and returns
what it computed, check() returns {"values": ...}. Weights in row form, x W1 and a W2.
"""

import json
import math
import os
import sys
import time

for name in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[name] = "1"
import numpy as np

folder, family, dtype = sys.argv[1:4]
p = {name: float(value) for name, value in (word.split("=") for word in sys.argv[4:])}
N, d, h, o, S = (int(p.get(name, 0)) for name in ("N", "d", "h", "o", "S"))
eta = p.get("eta")
real = np.float64 if dtype == "f64" else np.float32
rng = np.random.default_rng(1)
P = d * h + h * o


def given(name, shape=-1, kind=np.float64):
    end = "u32" if kind == np.uint32 else "f64"
    return np.fromfile(os.path.join(folder, f"{name}.{end}"), dtype=kind).reshape(shape)


def data():
    return given("X", (N, d)).astype(real), given("Y", (N, o)).astype(real)


def weights():
    values = given("weights").astype(real)
    return values[: d * h].reshape(d, h).copy(), values[d * h :].reshape(h, o).copy()


def flat(parts):
    return np.concatenate([np.asarray(part).ravel() for part in parts])


def repeat(once):
    def run(count):
        for _ in range(count):
            value = once()
        return value

    return run


def torch_():
    import torch

    torch.set_num_threads(1)
    return torch


# J1


def sgd_sides(step, start, indices, to_numpy):
    """Runs from a `step` on (W1, W2), which it may change or replace, and an index array."""
    state = [start()]

    def run(count):
        theta = state[0]
        for batch in indices(rng.integers(0, N, (count, S))):
            theta = step(theta, batch)
        state[0] = theta
        return to_numpy(theta)

    def check():
        theta = start()
        for batch in indices(given("batches", (-1, S), np.uint32).astype(np.int64)):
            theta = step(theta, batch)
        return {"values": to_numpy(theta)}

    return run, check


def numpy_sgd():
    X, Y = data()
    c = real(eta / S)

    def step(theta, batch):
        W1, W2 = theta
        x = X[batch]
        a = x @ W1
        e = a @ W2
        e -= Y[batch]
        e *= c
        b = e @ W2.T
        W2 -= a.T @ e
        W1 -= x.T @ b
        return theta

    return sgd_sides(step, weights, lambda all: all, flat)


def torch_sgd(automatic):
    torch = torch_()
    X, Y = (torch.tensor(values) for values in data())

    def start():
        return [torch.tensor(w, requires_grad=automatic) for w in weights()]

    def closed(theta, batch):
        W1, W2 = theta
        x = X[batch]
        a = x @ W1
        e = (a @ W2).sub_(Y[batch])
        b = e @ W2.t()
        W2.addmm_(a.t(), e, alpha=-eta / S)
        W1.addmm_(x.t(), b, alpha=-eta / S)
        return theta

    def autograd(theta, batch):
        loss = 0.5 * (X[batch] @ theta[0] @ theta[1] - Y[batch]).square().sum() / S
        gradients = torch.autograd.grad(loss, theta)
        with torch.no_grad():
            for w, g in zip(theta, gradients):
                w -= eta * g
        return theta

    step = autograd if automatic else closed
    return sgd_sides(step, start, torch.tensor, lambda theta: flat([w.detach().numpy() for w in theta]))


# J2


def noise_sides(of):
    """Of a function that returns the trace or the whole of Sigma."""

    def check():
        value = of()
        return {"values": np.asarray(value) @ given("v") if p["whole"] else [float(value)]}

    return repeat(of), check


def errors(X, Y, W1, W2):
    a = X @ W1
    e = a @ W2 - Y
    return a, e, e @ W2.T


def numpy_noise():
    """The trace from norms; Sigma from the matrix of all gradients."""
    X, Y = data()
    W1, W2 = weights()

    def trace():
        a, e, b = errors(X, Y, W1, W2)
        squared = (X * X).sum(1) * (b * b).sum(1) + (a * a).sum(1) * (e * e).sum(1)
        return squared.mean() - ((X.T @ b / N) ** 2).sum() - ((a.T @ e / N) ** 2).sum()

    def full():
        a, e, b = errors(X, Y, W1, W2)
        first = (X[:, :, None] * b[:, None, :]).reshape(N, -1)
        second = (a[:, :, None] * e[:, None, :]).reshape(N, -1)
        G = np.concatenate([first, second], 1)
        g = G.mean(0)
        return G.T @ G / N - np.outer(g, g)

    return noise_sides(full if p["whole"] else trace)


def numpy_structured():
    """Sigma of a linear net as a linear image of the fourth moments E[x_j e_k x_l e_m]."""
    X, Y = data()
    W1, W2 = weights()

    def full():
        e = X @ (W1 @ W2) - Y
        xe = (X[:, :, None] * e[:, None, :]).reshape(N, -1)
        moments = (xe.T @ xe / N).reshape(d, o, d, o)
        by_h = np.tensordot(moments, W2, (3, 1))  # j k l h'
        by_k = np.tensordot(moments, W1, (2, 0))  # j k m h'
        Sigma = np.empty((P, P))
        cut = d * h
        Sigma[:cut, :cut] = np.tensordot(W2, by_h, (1, 1)).transpose(1, 0, 2, 3).reshape(cut, cut)
        Sigma[cut:, :cut] = np.tensordot(W1, by_h, (0, 0)).reshape(P - cut, cut)
        Sigma[:cut, cut:] = Sigma[cut:, :cut].T
        Sigma[cut:, cut:] = np.tensordot(W1, by_k, (0, 0)).transpose(0, 1, 3, 2).reshape(P - cut, P - cut)
        gradient = X.T @ e / N
        g = flat([gradient @ W2.T, W1.T @ gradient])
        Sigma -= np.outer(g, g)
        return Sigma

    return noise_sides(full)


def torch_vmap():
    torch = torch_()
    try:
        from torch.func import grad, vmap
    except ImportError:
        from functorch import grad, vmap
    X, Y = (torch.tensor(values) for values in data())
    theta = tuple(torch.tensor(w) for w in weights())

    def loss(theta, x, y):
        return 0.5 * (x @ theta[0] @ theta[1] - y).square().sum()

    per_sample = vmap(grad(loss), (None, 0, 0))

    def of():
        G = torch.cat([g.reshape(N, -1) for g in per_sample(theta, X, Y)], 1)
        g = G.mean(0)
        if p["whole"]:
            return G.t() @ G / N - torch.outer(g, g)
        return (G * G).sum() / N - g.square().sum()

    return noise_sides(of)


def torch_closed_noise():
    torch = torch_()
    X, Y = (torch.tensor(values) for values in data())
    W1, W2 = (torch.tensor(w) for w in weights())

    def full():
        a, e, b = errors(X, Y, W1, W2)
        pairs = ((X, b), (a, e))
        G = torch.cat([torch.einsum("ni,nj->nij", *pair).reshape(N, -1) for pair in pairs], 1)
        g = G.mean(0)
        return G.t() @ G / N - torch.outer(g, g)

    return noise_sides(full)


# J3


def torch_double_backward():
    torch = torch_()
    X, Y = (torch.tensor(values) for values in data())
    theta = [torch.tensor(w, requires_grad=True) for w in weights()]

    def trace(probes):
        loss = 0.5 * (torch.tanh(X @ theta[0]) @ theta[1] - Y).square().sum() / N
        gradients = torch.autograd.grad(loss, theta, create_graph=True)
        total = 0.0
        for v in probes:
            Hv = torch.autograd.grad(gradients, theta, grad_outputs=v, retain_graph=True)
            total += sum((a * b).sum() for a, b in zip(v, Hv))
        return float(total) / len(probes)

    def once():
        count = int(p["probes"])
        return trace([[torch.randint_like(w, 0, 2) * 2 - 1 for w in theta] for _ in range(count)])

    def check():
        v = torch.tensor(given("v").astype(real))
        return {"values": [trace([[v[: d * h].view(d, h), v[d * h :].view(h, o)]])]}

    return repeat(once), check


# J4


def sde_sides(step, start, draw, to_numpy):
    state = start()

    def run(count):
        for _ in range(count):
            step(state, draw())
        return to_numpy(state)

    def check():
        theta = start()
        for xi in given("xi", (-1, N, 1)):
            step(theta, draw.given(xi))
        return {"values": to_numpy(theta)}

    return run, check


def numpy_sde():
    X, Y = data()

    def step(theta, xi):
        W1, W2 = theta
        weight = -eta / N - eta / math.sqrt(S * N) * (xi - xi.mean())
        a = X @ W1
        e = (a @ W2 - Y) * weight
        b = e @ W2.T
        W2 += a.T @ e
        W1 += X.T @ b

    def draw():
        return rng.standard_normal((N, 1))

    draw.given = lambda xi: xi
    return sde_sides(step, weights, draw, flat)


def torch_sde():
    torch = torch_()
    X, Y = (torch.tensor(values) for values in data())

    def step(theta, xi):
        W1, W2 = theta
        weight = -eta / N - eta / math.sqrt(S * N) * (xi - xi.mean())
        a = X @ W1
        e = (a @ W2 - Y) * weight
        b = e @ W2.t()
        W2.addmm_(a.t(), e)
        W1.addmm_(X.t(), b)

    def draw():
        return torch.randn(N, 1, dtype=X.dtype)

    draw.given = torch.tensor
    return sde_sides(step, lambda: [torch.tensor(w) for w in weights()], draw, flat)


def numpy_cholesky():
    """Sigma in full and a factor of it in every step. It has other normals than the other sides: its noise is checked in the mean."""
    X, Y = data()

    def step(theta, z):
        W1, W2 = theta
        a, e, b = errors(X, Y, W1, W2)
        first = (X[:, :, None] * b[:, None, :]).reshape(N, -1)
        G = np.concatenate([first, (a[:, :, None] * e[:, None, :]).reshape(N, -1)], 1)
        g = G.mean(0)
        Sigma = G.T @ G / N - np.outer(g, g)
        L = np.linalg.cholesky(Sigma + 1e-12 * np.eye(P))
        move = -eta * g + eta / math.sqrt(S) * (L @ z)
        W1 += move[: d * h].reshape(d, h)
        W2 += move[d * h :].reshape(h, o)
        return move, g, Sigma

    state = weights()

    def run(count):
        for _ in range(count):
            step(state, rng.standard_normal(P))
        return flat(state)

    def check():
        # without noise a gradient step; with it E|move + eta g|^2 = eta^2 / S Tr Sigma, here from 200 draws of one factor
        move, g, Sigma = step(weights(), np.zeros(P))
        L = np.linalg.cholesky(Sigma + 1e-12 * np.eye(P))
        power = ((L @ rng.standard_normal((P, 200))) ** 2).sum(0)
        trace = np.trace(Sigma)
        error = 6 * power.std() / math.sqrt(200) / trace
        expected = [1.0, 1.0]
        values = [1 + np.abs(move + eta * g).max(), power.mean() / trace]
        return {"values": values, "expected": expected, "tolerance": error}

    return run, check


# J5


def ensemble_sides(step, make, indices):
    start = [given("u"), given("w")]
    R = int(p["R"])
    state = [[make(values.copy()) for values in start]]

    def run(count):
        theta = state[0]
        for batch in indices(rng.integers(0, N, (count, R))):
            theta = step(*theta, batch)
        state[0] = theta
        return flat(theta)

    def check():
        theta = [make(values.copy()) for values in start]
        for batch in indices(given("batches", (-1, R), np.uint32).astype(np.int64)):
            theta = step(*theta, batch)
        return {"values": flat(theta)}

    return run, check


def numpy_ensemble():
    X, Y = given("X"), given("Y")

    def step(u, w, batch):
        x = X[batch]
        c = u * w
        c *= x
        c -= Y[batch]
        c *= x
        c *= eta
        following = u - c * w
        w -= c * u
        return following, w

    return ensemble_sides(step, lambda values: values, lambda all: all)


def torch_ensemble():
    torch = torch_()
    X, Y = torch.tensor(given("X")), torch.tensor(given("Y"))

    def step(u, w, batch):
        x = X[batch]
        c = (u * w).mul_(x).sub_(Y[batch]).mul_(x).mul_(eta)
        following = u - c * w
        w.addcmul_(c, u, value=-1)
        return following, w

    return ensemble_sides(step, torch.tensor, torch.tensor)


# normals


def normal_sides(draw):
    def check():
        x = np.asarray(draw(), dtype=np.float64)
        n = len(x)
        z = [x.mean() * n**0.5, ((x**2).mean() - 1) * (n / 2) ** 0.5, ((x**4).mean() - 3) * (n / 96) ** 0.5]
        return {"values": [1 + each for each in z], "expected": [1, 1, 1], "tolerance": 6}

    return repeat(draw), check


def numpy_normals():
    return normal_sides(lambda: rng.standard_normal(int(p["count"])))


def numpy_philox():
    generator = np.random.Generator(np.random.Philox(1))
    return normal_sides(lambda: generator.standard_normal(int(p["count"])))


def torch_normals():
    torch = torch_()
    return normal_sides(lambda: torch.randn(int(p["count"]), dtype=torch.float64))


sides = {
    "sgd": {
        "numpy": numpy_sgd,
        "torch-closed": lambda: torch_sgd(False),
        "torch-autograd": lambda: torch_sgd(True),
    },
    "noise": {
        "numpy-ghost": numpy_noise,
        "numpy-direct": numpy_noise,
        "numpy-structured": numpy_structured,
        "torch-vmap": torch_vmap,
        "torch-closed": torch_closed_noise,
    },
    "curvature": {"torch-double-backward": torch_double_backward},
    "sde": {"numpy-matrix-free": numpy_sde, "torch-matrix-free": torch_sde, "numpy-cholesky": numpy_cholesky},
    "ensemble": {"numpy": numpy_ensemble, "torch": torch_ensemble},
    "normals": {
        "numpy-generator": numpy_normals,
        "numpy-philox": numpy_philox,
        "torch": torch_normals,
    },
}[family]
prepared = {}


def answer(word, side, count=0):
    if word == "prepare":
        try:
            prepared[side] = sides[side]()
        except ImportError as error:
            return {"absent": str(error)}
        return {}
    run, check = prepared[side]
    if word == "check":
        result = check()
        return {**result, "values": np.asarray(result["values"], dtype=np.float64).ravel().tolist()}
    cpu, began = time.process_time(), time.perf_counter()
    result = run(int(count))
    ms, cpu_ms = 1e3 * (time.perf_counter() - began), 1e3 * (time.process_time() - cpu)
    total = float(np.asarray(result).sum())
    if not math.isfinite(total):
        raise ValueError("the result is not finite")
    return {"ms": ms, "cpuMs": cpu_ms, "checksum": repr(total)}


for line in sys.stdin:
    try:
        reply = answer(*line.split())
    except Exception as error:
        reply = {"error": repr(error)}
    print(json.dumps(reply), flush=True)
