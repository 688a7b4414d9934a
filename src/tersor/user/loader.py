"""The user's own functions by name, as the command line takes them: `package.module:function`."""

from __future__ import annotations

import difflib
import importlib
import importlib.util
import os
import sys
import zlib
from collections.abc import Callable
from types import ModuleType
from typing import Any

from tersor.errors import TersorError
from tersor.user.faults import described

_FORM = "write package.module:function or path/to/file.py:function"


def load_function(spec: str) -> Callable[..., Any]:
    """The function, class or other callable that `spec` names; its module is imported, and so run.

    Args:
        spec: `package.module:function` or `path/to/file.py:function`; attributes may follow one another after the
            colon, as in `nets:Tiny.build`. Modules of the current directory and neighbours of the file are found as
            `python -m` and `python file.py` find them: their folder stays first in `sys.path`, for imports that run
            later. A file is imported once, under its own name where that is free.

    Raises:
        TersorError: the spec has no colon, there is no such module, file or attribute, it is not callable, or importing
            it raised an error or tried to exit.
    """
    place, colon, path = spec.rpartition(":")
    parts = path.split(".")
    named = colon and place and all(part.isidentifier() for part in parts)
    if not named or (place.startswith(".") and not _is_file(place)):
        raise TersorError(f"{spec!r} does not name a function; {_FORM}")
    value: Any = _file(place, spec) if _is_file(place) else _module(place, spec)
    for done, part in enumerate(parts):
        value = _attribute(value, part, ".".join([place, *parts[:done]]), spec)
    if not callable(value):
        raise TersorError(f"{spec}: it is a {type(value).__name__}, which cannot be called; name a function or a class")
    return value


def _is_file(place: str) -> bool:
    return place.endswith(".py") or os.sep in place or (os.altsep or os.sep) in place


def _module(name: str, spec: str) -> ModuleType:
    _first_in_path(os.getcwd())
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name and f"{name}.".startswith(f"{error.name}."):
            raise TersorError(
                f"{spec}: there is no module {error.name!r} here or among the installed packages; {_FORM}, "
                "and run from the folder that holds it or install it"
            ) from error
        raise _failed(name, spec, error) from error
    except (Exception, SystemExit) as error:
        raise _failed(name, spec, error) from error


def _file(place: str, spec: str) -> ModuleType:
    """The file as a module: under its stem, which worker processes can import too, unless another module has it."""
    path = os.path.realpath(os.path.expanduser(place))
    if not os.path.isfile(path):
        raise TersorError(f"{spec}: there is no file {place!r}; {_FORM}")
    if not path.endswith(".py"):
        raise TersorError(f"{spec}: {place!r} is not a .py file; {_FORM}")
    name = os.path.basename(path).removesuffix(".py")
    if name in sys.modules and not _is_from(sys.modules[name], path):
        name = f"{name}_{zlib.crc32(path.encode()):08x}"
    if name in sys.modules:
        return sys.modules[name]
    _first_in_path(os.getcwd())
    _first_in_path(os.path.dirname(path))
    found = importlib.util.spec_from_file_location(name, path)
    assert found is not None and found.loader is not None
    module = importlib.util.module_from_spec(found)
    sys.modules[name] = module
    try:
        found.loader.exec_module(module)
    except BaseException as error:
        sys.modules.pop(name, None)
        if isinstance(error, (Exception, SystemExit)):
            raise _failed(place, spec, error) from error
        raise
    return module


def _is_from(module: ModuleType, path: str) -> bool:
    return os.path.realpath(getattr(module, "__file__", None) or "") == path


def _first_in_path(folder: str) -> None:
    if folder not in sys.path:
        sys.path.insert(0, folder)
    importlib.invalidate_caches()


def _attribute(owner: Any, name: str, where: str, spec: str) -> Any:
    try:
        return getattr(owner, name)
    except AttributeError as error:
        own = [n for n, value in getattr(owner, "__dict__", {}).items() if callable(value) and not n.startswith("_")]
        near = difflib.get_close_matches(name, dir(owner))
        hint = f"did you mean {', '.join(near)}?" if near else f"it has {', '.join(own[:10]) or 'no functions'}"
        raise TersorError(f"{spec}: {where} has no {name!r}; {hint}") from error
    except (Exception, SystemExit) as error:
        raise _failed(f"{where}.{name}", spec, error) from error


def _failed(what: str, spec: str, error: BaseException) -> TersorError:
    """The first words of the error, and the line of the user's code that raised it."""
    return TersorError(f"{spec}: importing {what} raised {described(error)}; mend that first")
