"""What crosses the wall between the sandbox and the grader: JSON for structure, npz for numbers, never pickle.

Written by hand. `pack` takes numbers, text, lists, dicts, arrays, pandas tables and tensors. `unpack` trusts nothing:
sizes are checked before anything is unfolded, and what is no array of numbers or text is refused.
"""
import io
import json
import struct
import sys
import zipfile

import numpy as np

MOST = 64_000_000  # bytes of one message, packed or unfolded
PARTS = 500_000  # lists and dicts in it: each costs the reader memory and time
HEAD = struct.Struct("<QQ")
KINDS = "biufU"


class WireError(ValueError):
    """A message that is not what it should be."""


def pack(thing) -> bytes:
    """A message as bytes: two lengths, JSON, npz."""
    arrays = {}
    text = json.dumps(_plain(thing, arrays)).encode()
    numbers = io.BytesIO()
    if arrays:
        np.savez(numbers, **arrays)
    if len(text) + numbers.tell() > MOST:
        raise WireError(f"the answer is larger than {MOST // 1_000_000} MB")
    return HEAD.pack(len(text), numbers.tell()) + text + numbers.getvalue()


def _plain(thing, arrays):
    if thing is None or isinstance(thing, (bool, int, float, str)):
        return thing
    if isinstance(thing, np.generic):
        return _plain(thing.item(), arrays)
    if isinstance(thing, (list, tuple)):
        return [_plain(part, arrays) for part in thing]
    if isinstance(thing, dict):
        return {"dict": [[str(key), _plain(part, arrays)] for key, part in thing.items()]}
    pandas, torch = sys.modules.get("pandas"), sys.modules.get("torch")
    if pandas and isinstance(thing, pandas.DataFrame):
        columns = [[str(name), _plain(thing[name].to_numpy(), arrays)] for name in thing]
        return {"frame": columns, "rows": len(thing)}
    if pandas and isinstance(thing, (pandas.Series, pandas.Index)):
        return _plain(thing.to_numpy(), arrays)
    if torch and isinstance(thing, torch.Tensor):
        return {"tensor": _plain(thing.detach().cpu().numpy(), arrays)}
    if isinstance(thing, np.ndarray):
        thing = thing.astype(str) if thing.dtype.kind in "OST" else thing
        if thing.dtype.kind in KINDS:
            name = f"a{len(arrays)}"
            arrays[name] = thing
            return {"array": name}
    raise WireError(f"the answer is a {type(thing).__name__}; what can be graded are numbers, text, lists and arrays")


def unpack(text: bytes, numbers: bytes):
    """The message again."""
    if text.count(b"[") + text.count(b"{") > PARTS:
        raise WireError("the answer has too many parts")
    try:
        return _build(json.loads(text), _arrays(numbers))
    except WireError:
        raise
    except Exception as error:  # zip, JSON, Unicode and NumPy each have errors of their own, and this is a stranger's
        raise WireError(f"the answer cannot be read ({type(error).__name__})") from None


def _arrays(numbers):
    if not numbers:
        return {}
    with zipfile.ZipFile(io.BytesIO(numbers)) as archive:
        parts = archive.infolist()
        if sum(part.file_size for part in parts) > MOST or any(part.compress_type for part in parts):
            raise WireError("the answer unfolds to more than may be sent")
    with np.load(io.BytesIO(numbers), allow_pickle=False) as file:
        arrays = {name: file[name] for name in file.files}
    if any(value.dtype.kind not in KINDS for value in arrays.values()):
        raise WireError("the answer holds arrays that are neither numbers nor text")
    return arrays


def _build(thing, arrays):
    if isinstance(thing, list):
        return [_build(part, arrays) for part in thing]
    if isinstance(thing, str):
        return thing.encode("utf-8", "replace").decode()  # half a character cannot be written down again
    if not isinstance(thing, dict):
        return thing
    if "array" in thing:
        return arrays.pop(thing["array"])  # once: a table of a thousand columns that are one would be large
    if "tensor" in thing:
        found, torch = _build(thing["tensor"], arrays), sys.modules.get("torch")
        return torch.from_numpy(found.copy()) if torch else found
    if "frame" in thing:
        import pandas as pd

        columns = {_build(name, arrays): _build(part, arrays) for name, part in thing["frame"]}
        if any(not isinstance(part, (list, np.ndarray)) or len(part) != thing["rows"] for part in columns.values()):
            raise WireError("the answer is a table whose columns have not one length")
        return pd.DataFrame(columns, index=range(thing["rows"] if columns else 0))
    return {_build(key, arrays): _build(part, arrays) for key, part in thing["dict"]}


def receive(read) -> object:
    """The next message; `read(n)` gives exactly n bytes, or fewer at the end."""
    head = read(HEAD.size)
    if len(head) < HEAD.size:
        raise EOFError
    lengths = HEAD.unpack(head)
    if sum(lengths) > MOST:
        raise WireError("the answer is longer than may be sent")
    text, numbers = (read(length) for length in lengths)
    if (len(text), len(numbers)) != lengths:
        raise EOFError
    return unpack(text, numbers)
