"""Find workloads: by name in the `workloads` package, by path anywhere else.

The file's name is the registry. A workload's version is its declared number and a hash of its
source, so that rows of code that measured something else are never compared. Nothing here imports
torch; a user's file may.
"""

import ast
import hashlib
import importlib
import importlib.util
import math
import sys
import tokenize
from collections.abc import Mapping
from contextlib import redirect_stdout
from dataclasses import dataclass, fields
from decimal import Decimal
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any, get_args, get_origin, get_type_hints

from bench.core.errors import IncompatibleError, UsageError, one_of
from bench.core.nouns import DTYPES, Scalar
from bench.core.paths import user_path
from bench.workload import Phase, Workload


@dataclass(frozen=True, kw_only=True)
class Found:
    """A workload class and where it comes from."""

    name: str
    source: str
    """Path of a file outside the package, else ''."""
    cls: type[Workload]
    path: Path

    @property
    def version(self) -> str:
        """`<declared version>-<hash of the code>`."""
        return f"{self.cls.declared_version}-{source_hash(self.path)}"

    @property
    def lacking(self) -> str:
        """Libraries beyond the base installation that are not here, and what installs them."""
        missing = [one for one in self.cls.extras if not _is_here(one)]
        extras = ",".join(dict.fromkeys(self.cls.extras[one] for one in missing))
        how = f"pip install 'gapbench[{extras}]'"
        return f"{', '.join(missing)} not installed: {how}" if missing else ""

    def phase(self, name: str) -> Phase:
        """Return the phase called `name`; `UsageError` lists what there is."""
        for phase in self.cls.phases:
            if phase.name == name:
                return phase
        allowed = [f"{self.name}-{phase.name}" for phase in self.cls.phases]
        raise one_of("workload", f"{self.name}-{name}", allowed)


def _is_here(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except (ImportError, ValueError):  # not even the package that it is in
        return False


def names() -> list[str]:
    """Names of the workloads shipped with the harness."""
    spec = importlib.util.find_spec("workloads")
    assert spec is not None and spec.submodule_search_locations
    folder = Path(next(iter(spec.submodule_search_locations)))
    return sorted(p.stem for p in folder.glob("*.py") if not p.stem.startswith("_"))


@cache
def load(name_or_path: str) -> Found:
    """Load a shipped workload by name, or one from a file; `UsageError` says what is wrong."""
    if name_or_path.endswith(".py") or "/" in name_or_path:
        path = user_path(name_or_path, what="workload file").resolve()
        return _found(_import_file(path), name=path.stem.replace("-", "_"), source=str(path))
    if name_or_path not in names():
        raise one_of("workload", name_or_path, names(), hint="(or give a path such as ./mine.py)")
    module = importlib.import_module(f"workloads.{name_or_path}")
    return _found(module, name=name_or_path, source="")


def load_planned(name_or_path: str, *, version: str) -> Found:
    """Load what a trial shall run; `IncompatibleError` when it changed since it was planned."""
    found = load(name_or_path)
    if found.version != version:
        raise IncompatibleError(
            f"workload {found.name} changed since the run began "
            f"({version}, now {found.version}); start a new run"
        )
    return found


def _import_file(path: Path) -> ModuleType:
    if not path.is_file():
        raise UsageError(f"workload file {path} does not exist")
    # Modules beside the file can be imported, as when a script is run.
    if str(path.parent) not in sys.path:
        sys.path.append(str(path.parent))
    spec = importlib.util.spec_from_file_location(f"_workload_{path.stem}", path)
    if spec is None or spec.loader is None:
        raise UsageError(f"workload file {path} is not a Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    try:
        # What the file prints must not get between the results on standard output.
        with redirect_stdout(sys.stderr):
            spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        where = f", line {error.lineno}" if isinstance(error, SyntaxError) else ""
        raise UsageError(
            f"workload file {path}{where} cannot be imported: {type(error).__name__}: {error}"
        ) from error
    return module


def _found(module: ModuleType, *, name: str, source: str) -> Found:
    cls, path = getattr(module, "Workload", None), Path(str(module.__file__))
    if not (isinstance(cls, type) and issubclass(cls, Workload)) or cls is Workload:
        raise UsageError(f"{path} has no class Workload derived from bench.workload.Workload")
    missing = sorted(getattr(cls, "__abstractmethods__", ()))
    for phase in cls.phases:
        method = "loss" if phase.is_training else phase.name
        if getattr(cls, method, None) in (None, Workload.loss):
            missing.append(f"{method} (for its phase {phase.name})")
    if missing:
        raise UsageError(f"class Workload in {path} lacks {', '.join(missing)}")
    if cls.dtypes is not None and not (cls.dtypes and set(cls.dtypes) <= set(DTYPES)):
        raise UsageError(
            f"dtypes of class Workload in {path}: some of {', '.join(DTYPES)}, or None"
        )
    if not isinstance(cls.extras, Mapping):
        raise UsageError(
            f"extras of class Workload in {path}: extra by module, as {{'av': 'video'}}"
        )
    return Found(name=name, source=source, cls=cls, path=path)


@cache
def source_hash(path: Path) -> str:
    """Eight hex digits of the code of a workload and of the underscore modules that it imports."""
    digest = hashlib.sha256()
    pending, seen = [path], set[Path]()
    while pending:
        current = pending.pop(0)
        if current in seen or not current.is_file():
            continue
        seen.add(current)
        with tokenize.open(current) as file:  # in the encoding that the file declares
            text = file.read()
        tree = ast.parse(text)
        digest.update("\n".join(_code_lines(text, tree)).encode())
        pending += _underscore_files(tree, folder=path.parent)
    return digest.hexdigest()[:8]


def _underscore_files(tree: ast.AST, *, folder: Path) -> list[Path]:
    """`workloads._llm.llm_cost` and `_parts` are files of the workload's own folder."""
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            module = node.module or ""
            names |= {module, *(f"{module}.{alias.name}" for alias in node.names)}
    found = []
    for name in sorted(names):
        parts = name.split(".")
        first = next((i for i, part in enumerate(parts) if part.startswith("_")), None)
        if first is not None:
            found.append(folder.joinpath(*parts[first:]).with_suffix(".py"))
    return found


def _code_lines(text: str, tree: ast.Module) -> list[str]:
    """Lines of code alone. Not a syntax tree's dump: that differs between Python versions."""
    prose: set[int] = set()
    for node in ast.walk(tree):
        match getattr(node, "body", None):
            case [ast.Expr(value=ast.Constant(value=str())) as first, *_]:
                prose.update(range(first.lineno, (first.end_lineno or first.lineno) + 1))
    numbered = enumerate(text.splitlines(), start=1)
    stripped = (line.rstrip() for number, line in numbered if number not in prose)
    return [line for line in stripped if line and not line.lstrip().startswith("#")]


def instance(found: Found, *, size: str | None, overrides: dict[str, Any]) -> Workload:
    """Build the workload at a named size with overrides; values may be text from a flag."""
    sizes = found.cls.sizes
    if size is not None and size not in sizes:
        raise one_of("size", size, list(sizes), hint=f"for {found.name}")
    values: dict[str, Any] = {} if size is None else dict(sizes[size])
    try:
        hints = get_type_hints(found.cls)
    except NameError as error:
        raise UsageError(f"workload {found.name}: the type of a parameter: {error}") from error
    known = [field.name for field in fields(found.cls)]
    for key, value in overrides.items():
        if key not in known:
            raise one_of(f"parameter of {found.name}", key, known)
        values[key] = _converted(value, hint=hints[key], key=key)
    try:
        return found.cls(**values)
    except (TypeError, ValueError) as error:
        raise UsageError(f"workload {found.name} refuses its parameters: {error}") from error


def parameters(workload: Workload) -> dict[str, Scalar]:
    """Return every field as a scalar; tuples are written as on the command line, '8x16x32'."""
    values = {field.name: getattr(workload, field.name) for field in fields(workload)}
    return {
        name: "x".join(map(str, value)) if isinstance(value, tuple) else value
        for name, value in values.items()
    }


def _converted(value: Any, *, hint: Any, key: str) -> Any:
    if get_origin(hint) is tuple:
        parts = value if isinstance(value, tuple) else str(value).split("x")
        return tuple(_converted(part, hint=get_args(hint)[0], key=key) for part in parts)
    if type(None) in get_args(hint):
        if value is None or str(value).lower() == "none":
            return None
        hint = next(arg for arg in get_args(hint) if arg is not type(None))
    text = str(value)
    kinds = {bool: "true or false", int: "a whole number", float: "a finite number"}
    if hint not in kinds:
        return text
    try:
        if hint is bool:
            return {"true": True, "1": True, "false": False, "0": False}[text.lower()]
        number = Decimal(text)  # exact, and reads '1e3'
        # No tensor could have a whole number of more than 63 bits.
        if hint is int and abs(number) < 2**63 and number % 1 == 0:
            return int(number)
        if hint is float and math.isfinite(float(number)):
            return float(text)
        raise ValueError
    except (KeyError, ValueError, ArithmeticError):
        raise UsageError(f"parameter {key} needs {kinds[hint]}, not {text!r}") from None
