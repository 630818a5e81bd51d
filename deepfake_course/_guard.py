"""Keep PyTorch and TensorFlow alive in one process. Written by hand; imported before everything else.

PyTorch's Linux builds bring Triton. Triton and TensorFlow each carry LLVM, and when Triton is
loaded *second* LLVM finds its command line options registered twice and aborts the process: no
traceback, only a dead kernel. PyTorch loads Triton late (at the first `Adam`, `torch.compile` or
`import torchvision`), so an innocent cell far below the imports is where the notebook dies.

The remedy is the order. This module hooks `import tensorflow` and loads Triton just before it; that
costs nothing in a process that never imports TensorFlow. If TensorFlow is there already it is too
late, so Triton is blocked (PyTorch then runs without its compiler) and a warning says so.
"""
import importlib
import importlib.abc
import importlib.util
import os
import sys
import warnings

os.environ.setdefault("KERAS_BACKEND", "tensorflow")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")


def _load_triton():
    try:
        importlib.import_module("triton._C.libtriton")
    except ImportError:
        return False  # macOS, Windows and CPU builds of PyTorch have no Triton: nothing to guard
    return True


class _TritonFirst(importlib.abc.MetaPathFinder):
    """Answers no import itself; it only runs Triton's import before TensorFlow's."""

    def find_spec(self, fullname, path=None, target=None):
        if fullname == "tensorflow":
            sys.meta_path.remove(self)
            _load_triton()
        return None


def _install():
    if "triton" in sys.modules or any(isinstance(f, _TritonFirst) for f in sys.meta_path):
        return
    if "tensorflow" not in sys.modules:
        sys.meta_path.insert(0, _TritonFirst())
        return
    if importlib.util.find_spec("triton") is None:
        return
    sys.modules["triton"] = None
    warnings.warn(
        "TensorFlow was imported before deepfake_course, so Triton is switched off in this process "
        "(loading it now would abort the kernel) and torch.compile is not available. "
        "Import deepfake_course first.",
        RuntimeWarning,
        stacklevel=3,
    )


_install()
