"""Where passes come from: the decorator `register`, and plug-in packages.

A distribution offers passes by an entry point in the group ``hintc.passes`` whose value names a
*package*: every module directly in it is imported, so a new file is found without reinstalling.
The package may hold a text ``DEFAULT_PIPELINE``, what `PassPipeline.DEFAULT` reads. hintc's own
passes come in just this way. A module that cannot be imported is a `Problem`; it becomes an error
only when a pass of it is asked for.
"""

from __future__ import annotations

import dataclasses
import importlib
import pkgutil
import re
import sys
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import entry_points
from typing import Any, TypeVar

from hintc.errors import HintcError
from hintc.near import did_you_mean
from hintc.rewrite import Pass

GROUP = "hintc.passes"
"""The entry-point group."""
_NAME = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*\Z")
_PassClass = TypeVar("_PassClass", bound=type[Pass])


@dataclass(frozen=True)
class Problem:
    """Part of a plug-in that could not be used.

    Attributes:
        plugin: name of the entry point.
        module: the module that failed.
        error: why.
    """

    plugin: str
    module: str
    error: Exception

    def __str__(self) -> str:
        return (
            f"plug-in '{self.plugin}': module {self.module} cannot be loaded: "
            f"{type(self.error).__name__}: {self.error}"
        )


def register(cls: _PassClass) -> _PassClass:
    """Class decorator: make a pass known by its `name`.

    Raises:
        HintcError: it is no proper pass (a `Pass` with a kebab-case name; a frozen dataclass if it
            has options, each with a default), or another class has that name.
    """
    _check(cls)
    _declared.setdefault(cls.__module__, {})[cls.__qualname__] = cls
    _registry.add(cls)
    return cls


def passes() -> dict[str, type[Pass]]:
    """All passes by name, sorted; those of plug-ins are loaded on the first call."""
    return dict(sorted(_registry.discovered().passes.items()))


def find(name: str) -> type[Pass]:
    """The pass called `name`.

    Raises:
        HintcError: there is none (near matches are offered), two plug-ins have one, or it is in
            a module that cannot be loaded.
    """
    return _registry.discovered().find(name)


def problems() -> list[Problem]:
    """What was wrong with plug-ins."""
    return list(_registry.discovered().problems)


def default_pipeline() -> str:
    """The text of the default pipeline, "" if no plug-in gives one.

    Raises:
        HintcError: two plug-ins give one.
    """
    return _registry.discovered().default_pipeline()


@contextmanager
def isolated(*packages: str) -> Iterator[None]:
    """For tests: inside, there are only the passes of `packages` and those registered inside."""
    global _registry  # noqa: PLW0603  (one registry for each process, exchanged for a test)
    outer, _registry = _registry, Registry([(package, package) for package in packages])
    try:
        yield
    finally:
        _registry = outer


class Registry:
    """The passes that are known.

    Args:
        plugins: name and package of each plug-in; by default those of the installed entry points.
    """

    def __init__(self, plugins: Iterable[tuple[str, str]] | None = None) -> None:
        self.passes: dict[str, type[Pass]] = {}
        self.problems: list[Problem] = []
        self._clashes: dict[str, HintcError] = {}
        self._defaults: dict[str, str] = {}
        self._plugins = None if plugins is None else list(plugins)
        self._is_discovered = False
        self._lock = threading.RLock()

    def add(self, cls: type[Pass]) -> None:
        """Make a pass known.

        Raises:
            HintcError: another class has its name.
        """
        other = self.passes.setdefault(cls.name, cls)
        if _place(other) == _place(cls):  # the same again, e.g. its module was reloaded
            self.passes[cls.name] = cls
            return
        self._clashes[cls.name] = HintcError(
            f"two passes are called '{cls.name}'",
            why=f"{_place(other)} and {_place(cls)}",
            remedy="Rename one, or uninstall one of the plug-ins.",
        )
        raise self._clashes[cls.name]

    def discovered(self) -> Registry:
        """This registry, with the plug-ins loaded."""
        with self._lock:  # other threads wait; a plug-in that asks while it is loaded does not
            if not self._is_discovered:
                self._is_discovered = True
                self._discover()
        return self

    def _discover(self) -> None:
        plugins = self._plugins
        if plugins is None:
            plugins = [(e.name, e.value) for e in entry_points(group=GROUP)]
        for plugin, package in sorted(set(plugins)):
            self._load_package(plugin, package)

    def find(self, name: str) -> type[Pass]:
        """See `hintc.registry.find`."""
        if name in self._clashes:
            raise self._clashes[name]
        if name in self.passes:
            return self.passes[name]
        module = name.replace("-", "_")
        for problem in self.problems:
            if problem.module.rpartition(".")[2] == module:
                raise HintcError(f"pass '{name}' cannot be used", why=str(problem)) from (
                    problem.error
                )
        raise HintcError(
            f"there is no pass '{name}'",
            why="; ".join(map(str, self.problems)) or None,
            remedy=did_you_mean(name, sorted(self.passes), "passes"),
        )

    def default_pipeline(self) -> str:
        """See `hintc.registry.default_pipeline`."""
        if len(self._defaults) > 1:
            raise HintcError(
                "more than one plug-in gives the default pipeline",
                why=" and ".join(sorted(self._defaults)),
                remedy="Only one may have a DEFAULT_PIPELINE.",
            )
        return next(iter(self._defaults.values()), "")

    def _load_package(self, plugin: str, package: str) -> None:
        loaded = self._load_module(plugin, package)
        if loaded is None:
            return
        default = getattr(loaded, "DEFAULT_PIPELINE", None)
        if isinstance(default, str):
            self._defaults[package] = default
        for info in pkgutil.iter_modules(getattr(loaded, "__path__", ())):
            if not info.ispkg:
                self._load_module(plugin, f"{package}.{info.name}")

    def _load_module(self, plugin: str, name: str) -> Any:
        try:
            module = importlib.import_module(name)
            # a module that was loaded before does not run its decorators again
            for cls in _declared.get(name, {}).values():
                self.add(cls)
        except Exception as error:  # noqa: BLE001  (whatever it is, it must not take hintc down)
            self.problems.append(Problem(plugin, name, error))
            return None
        return module


_declared: dict[str, dict[str, type[Pass]]] = {}
"""Every class that was ever registered, by module and qualified name."""
_registry = Registry()


def _check(cls: type[Pass]) -> None:
    given: object = cls  # the annotation is only what we ask for
    if not (isinstance(given, type) and issubclass(given, Pass)):
        raise HintcError(f"{cls!r} is not a pass", remedy="Derive it from hintc.Pass.")
    name = getattr(cls, "name", None)
    if not isinstance(name, str) or not _NAME.match(name):
        raise HintcError(
            f"{_place(cls)} has the name {name!r}",
            remedy="Give it `name: ClassVar[str]`, lower-case words joined by dashes.",
        )
    frozen = getattr(cls, "__dataclass_params__").frozen  # noqa: B009  (not in typeshed)
    fields = {field.name: field for field in dataclasses.fields(cls)}
    own = [n for n, t in cls.__annotations__.items() if "ClassVar" not in str(t)]
    if not frozen or any(n not in fields for n in own):
        raise HintcError(
            "a pass must be a frozen dataclass",
            pass_name=name,
            remedy="Decorate it with @register above @dataclass(frozen=True).",
        )
    missing = dataclasses.MISSING
    for field in fields.values():
        if field.init and field.default is missing and field.default_factory is missing:
            raise HintcError(f"option '{field.name}' has no default", pass_name=name)


def _place(cls: type) -> str:
    """Where a class is, for people: module, name, file."""
    file = getattr(sys.modules.get(cls.__module__), "__file__", None)
    place = f"{cls.__module__}.{cls.__qualname__}"
    return f"{place} ({file})" if file else place
