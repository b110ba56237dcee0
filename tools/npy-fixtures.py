"""Writes test/fixtures/numpy/: arrays as numpy writes them, which test/records/npy.test.ts reads. Needs numpy.

    python3 tools/npy-fixtures.py
"""

import os

import numpy as np

folder = os.path.join(os.path.dirname(__file__), "..", "test", "fixtures", "numpy")
os.makedirs(folder, exist_ok=True)

odd = np.array([0.0, -0.0, np.nan, np.inf, -np.inf, 5e-324, 1.7976931348623157e308, 0.1])
arrays = {
    "f8": odd,
    "f4": odd[[0, 1, 2, 3, 4, 7]].astype("<f4").reshape(2, 3),
    "i4": np.array([[-2147483648, 2147483647], [0, -1]], dtype="<i4"),
    "u4": np.array([4294967295, 0], dtype="<u4"),
    "number": np.array(2.5),
    "none": np.zeros((0, 3)),
    "naïve name": np.arange(3, dtype="<f8"),
}
for name in ("f8", "f4", "i4", "u4", "number", "none"):
    np.save(os.path.join(folder, f"{name}.npy"), arrays[name])
np.savez(os.path.join(folder, "stored.npz"), **arrays)
np.savez_compressed(os.path.join(folder, "deflated.npz"), **arrays, zeros=np.zeros(2000))

# what is refused, by name
np.save(os.path.join(folder, "refused-i8.npy"), np.arange(3))
np.save(os.path.join(folder, "refused-c16.npy"), np.zeros(2, dtype="<c16"))
np.save(os.path.join(folder, "refused-big.npy"), np.zeros(2, dtype=">f8"))
np.save(os.path.join(folder, "refused-fortran.npy"), np.asfortranarray(np.zeros((2, 3))))
np.save(os.path.join(folder, "refused-fields.npy"), np.zeros(2, dtype=[("a", "<f8"), ("b", "<i4")]))
np.save(os.path.join(folder, "refused-text.npy"), np.array(["a", "bc"]))
print(f"numpy {np.__version__}")
