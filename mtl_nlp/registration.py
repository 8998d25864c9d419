"""Registration of the multitask classes with transformers, without importing transformers.

After `import mtl_nlp`, `AutoConfig`, `AutoModel` and `pipeline("multitask")` know the multitask model, whether mtl_nlp
or transformers is imported first. Importing both costs seconds, so `import mtl_nlp` registers at once only with the
registries of transformers that are already imported. A finder on `sys.meta_path` waits for the import of the others.
"""

from __future__ import annotations

import importlib
import operator
import sys
from collections.abc import Callable, Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any, NamedTuple


class Registration(NamedTuple):
    """A class of mtl_nlp and the registry of transformers that it belongs in.

    Attributes:
        registry: the module of transformers that holds the registry.
        module: the module of mtl_nlp that defines the class, and imports the registry.
        register: a function that registers the class, called after both modules have been executed.
    """

    registry: str
    module: str
    register: Callable[[], None]


def _register_config() -> None:
    from transformers.models.auto.configuration_auto import AutoConfig

    from mtl_nlp.modeling.configuration_multitask import MultitaskConfig

    AutoConfig.register(MultitaskConfig.model_type, MultitaskConfig, exist_ok=True)


def _register_model() -> None:
    from transformers.models.auto.modeling_auto import AutoModel

    from mtl_nlp.modeling.configuration_multitask import MultitaskConfig
    from mtl_nlp.modeling.modeling_multitask import MultitaskModel

    AutoModel.register(MultitaskConfig, MultitaskModel, exist_ok=True)


def _register_pipeline() -> None:
    from transformers.models.auto.modeling_auto import AutoModel
    from transformers.pipelines import PIPELINE_REGISTRY

    from mtl_nlp.modeling.pipeline_multitask import MultitaskPipeline

    PIPELINE_REGISTRY.register_pipeline("multitask", pipeline_class=MultitaskPipeline, pt_model=AutoModel, type="text")


REGISTRATIONS = (
    Registration(
        "transformers.models.auto.configuration_auto",
        "mtl_nlp.modeling.configuration_multitask",
        _register_config,
    ),
    Registration("transformers.models.auto.modeling_auto", "mtl_nlp.modeling.modeling_multitask", _register_model),
    Registration("transformers.pipelines", "mtl_nlp.modeling.pipeline_multitask", _register_pipeline),
)


class RegistrationFinder(MetaPathFinder):
    """A finder that finds no modules itself, but registers the classes when a registry has been imported.

    The registries are often imported by modules of `mtl_nlp.modeling`, on which the classes depend. The registration
    waits until these modules are complete.
    """

    def __init__(self) -> None:
        self._registries = {entry.registry: entry for entry in REGISTRATIONS}
        # Each of these operations on a set and a list is atomic, since several threads may import at once.
        self._under_way: set[str] = set()
        self._waiting: list[Registration] = []

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Return the spec of the later finders for a registry or a module of `mtl_nlp.modeling`; else None."""
        if fullname not in self._registries and not fullname.startswith("mtl_nlp.modeling."):
            return None
        for finder in sys.meta_path[sys.meta_path.index(self) + 1 :]:
            spec = finder.find_spec(fullname, path, target)
            if spec is not None:
                if spec.loader is not None:
                    spec.loader = _ReportingLoader(spec.loader, self)
                return spec
        return None

    def execute(self, loader: Loader, module: ModuleType) -> None:
        """Execute a module, then register the classes that can be registered.

        Args:
            loader: the module's own loader.
            module: a registry or a module of `mtl_nlp.modeling`.
        """
        name = module.__name__
        if name in self._registries:
            loader.exec_module(module)
            # The registry is complete. A thread that imports `mtl_nlp.modeling` must not wait for this thread, since
            # this thread is about to wait for that one.
            module.__spec__._initializing = False  # type: ignore[union-attr]
            self.register(name)
            return
        self._under_way.add(name)
        try:
            loader.exec_module(module)
        finally:
            self._under_way.discard(name)
        self._register_waiting()

    def register(self, registry: str) -> None:
        """Register the class that belongs in an executed registry, now or when `mtl_nlp.modeling` is complete."""
        self._waiting.append(self._registries[registry])
        self._register_waiting()

    def _register_waiting(self) -> None:
        while self._waiting and not self._under_way:
            try:
                entry = self._waiting.pop()
            except IndexError:  # another thread has taken the last one
                return
            is_registered = False
            try:
                importlib.import_module(entry.module)
                entry.register()
                is_registered = True
            finally:
                if not is_registered:  # such as an interrupted import: the next import tries again
                    self._waiting.append(entry)


class _ReportingLoader(Loader):
    """A loader that makes a `RegistrationFinder` execute the module with the module's own loader."""

    def __init__(self, loader: Loader, finder: RegistrationFinder) -> None:
        self._loader = loader
        self._finder = finder

    def __getattr__(self, name: str) -> Any:
        """Return an attribute of the module's own loader, such as `get_source`, for tools that inspect modules."""
        return operator.attrgetter(name)(self._loader)

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        """Create the module with its own loader."""
        return self._loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        """Execute the module with its own loader, and restore this loader as the module's loader."""
        assert module.__spec__ is not None
        module.__loader__ = module.__spec__.loader = self._loader
        self._finder.execute(self._loader, module)


def register_on_import() -> None:
    """Register the multitask classes with transformers, now if transformers is imported, otherwise on its import.

    A repeated call, as by `importlib.reload(mtl_nlp)`, changes nothing.
    """
    if any(isinstance(finder, RegistrationFinder) for finder in sys.meta_path):
        return
    finder = RegistrationFinder()
    sys.meta_path.insert(0, finder)
    for entry in REGISTRATIONS:
        if entry.registry in sys.modules:
            importlib.import_module(entry.registry)  # waits if another thread is executing the registry
            finder.register(entry.registry)
