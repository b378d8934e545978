"""What a stage is, and how one is found by its name.

A stage changes one sample. The stages themselves are in `prefect_pipestream.stages`; here
are their base class, the two that this module makes itself (`StageCompose` for lists and
`>>`, `StageLambda` for plain callables), and `resolve_stage`, which makes a stage of a
specification from a parameter form or a file.
"""

import importlib
import inspect
from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from enum import Enum
from typing import Annotated, Any, ClassVar, cast, overload

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from prefect_pipestream.errors import PipeBuildingError, SampleError
from prefect_pipestream.sequences.building import (
    argument_name,
    construct,
    import_member,
    split_arguments,
    suggestion,
)
from prefect_pipestream.sequences.sample import EMPTY_SAMPLE, Sample

StageSpec = Any
"""A stage, "name", {"name": arguments}, "package.module:name", or a list of these."""


class Removal(Enum):
    """What a stage returns, in place of a sample, to have the sample removed."""

    REMOVE = "remove"


REMOVE = Removal.REMOVE
"""The sample is to be removed from the dataset that is written: all its own files, undoably.

In place that is the sample itself. Where samples are written to another dataset, it is what that
has at the same index, if it has anything there.
"""

StageResult = Sample | None | tuple[Sample, int] | Removal
"""A sample to write, a sample and the index to write it at, None to write nothing and keep what is
there, or `REMOVE`."""

_STAGES: dict[str, type["SampleStage"]] = {}
# Packages that register stages when they are imported. This module cannot import them
# (imports point the other way), so they are loaded when a name is first looked up.
_PROVIDERS: list[str] = ["prefect_pipestream.stages"]


def _register(title: str, cls: type["SampleStage"]) -> None:
    provided = cls.__module__.startswith(("prefect_pipestream.stages", __name__))
    if not provided:
        # A clash with a built-in name is to be seen where the class is defined.
        _load_providers()
    known = _STAGES.get(title)
    # The same class comes again when its module is reloaded or unpickled in a worker.
    if known and (known.__module__, known.__qualname__) != (cls.__module__, cls.__qualname__):
        raise ValueError(
            f"the stage title {title!r} of {cls.__module__}:{cls.__qualname__} is taken by "
            f"{known.__module__}:{known.__qualname__}: choose another."
        )
    _STAGES[title] = cls


def _load_providers() -> None:
    for module in _PROVIDERS:
        importlib.import_module(module)


class SampleStage(BaseModel):
    """A change to one sample: a pydantic model whose fields are its arguments.

    Subclass it with a `title` and it can be named in any list of operations:

        class StageGamma(SampleStage, title="gamma"):
            \"\"\"Raises the image to a power.\"\"\"

            power: float = Field(1.0, gt=0, description="The exponent.")

            def __call__(self, sample: Sample) -> Sample | None:
                ...

    Without a title it is named by where it is defined: "package.module:StageGamma".

    Raises:
        ValueError: If another stage has this title.
    """

    model_config = ConfigDict(extra="forbid", arbitrary_types_allowed=True)

    stage_title: ClassVar[str | None] = None
    # Whether a text can say its arguments, so that it is among the stages to choose from.
    from_text: ClassVar[bool] = True

    @classmethod
    def __pydantic_init_subclass__(cls, **kwargs: Any) -> None:
        super().__pydantic_init_subclass__(**kwargs)
        title = cls.model_config.get("title")
        inherited = any(
            issubclass(base, SampleStage) and base.model_config.get("title") == title
            for base in cls.__mro__[1:]
        )
        cls.stage_title = None if inherited else title
        if cls.stage_title is not None:
            _register(cls.stage_title, cls)

    @abstractmethod
    def __call__(self, sample: Sample) -> StageResult:
        """Changes the sample.

        Returns:
            The changed sample, or it and its new index; None to write nothing, `REMOVE` to have
            the sample removed.
        """

    def __rshift__(self, other: "SampleStage") -> "StageCompose":
        """`a >> b`: first a, then b."""
        return StageCompose(stages=[*_parts(self), *_parts(other)])

    def __lshift__(self, other: "SampleStage") -> "StageCompose":
        """`a << b`: first b, then a."""
        return StageCompose(stages=[*_parts(other), *_parts(self)])

    @classmethod
    def stage_name(cls) -> str:
        """The name by which `resolve_stage` finds this stage."""
        return cls.stage_title or f"{cls.__module__}:{cls.__qualname__}"

    def to_spec(self) -> dict[str, Any]:
        """Returns {"name": arguments}, from which `resolve_stage` makes an equal stage."""
        fields = type(self).model_fields.items()
        return {self.stage_name(): {argument_name(n, f): getattr(self, n) for n, f in fields}}


def resolve_stage(spec: StageSpec, *, allow_callable: bool = False) -> SampleStage:
    """Makes a stage of its specification.

    Args:
        spec: A stage; the name of a registered stage; {"name": arguments}, with a mapping of
            arguments by keyword, a list by position, anything else as the one argument;
            "package.module:name", in place of a name, of a `SampleStage` subclass or a function
            decorated with `sample_stage`; or a list of these, applied in order.
        allow_callable: Also take a callable object `(sample) -> sample`. Never set it for
            specifications that come from outside of Python; a string never names one.

    Raises:
        PipeBuildingError: If the name or an argument is wrong; the message names the stage, the
            argument and what is allowed.
    """
    if isinstance(spec, SampleStage):
        return spec
    if isinstance(spec, str):
        return construct(stage_class(spec), spec)
    if isinstance(spec, Mapping):
        return _compose([_from_pair(name, args) for name, args in spec.items()])
    if isinstance(spec, list | tuple):
        return _compose([resolve_stage(one, allow_callable=allow_callable) for one in spec])
    if isinstance(spec, type) and issubclass(spec, SampleStage):
        return construct(spec, spec.stage_name())
    if allow_callable and callable(spec):
        return StageLambda(spec)
    raise PipeBuildingError(
        f'{spec!r} is not a stage: expected "name", {{"name": arguments}}, '
        '"package.module:name" or a list of these.'
    )


def registered_stages() -> dict[str, type[SampleStage]]:
    """Returns all named stages by title, the package's own included."""
    _load_providers()
    return dict(sorted(_STAGES.items()))


StageInput = Annotated[
    SampleStage, BeforeValidator(lambda spec: resolve_stage(spec, allow_callable=True))
]
"""A field that takes a stage or its specification, from Python also a callable."""


class StageCompose(SampleStage, title="compose"):
    """Applies stages one after the other; stops at the first that returns None or `REMOVE`."""

    stages: list[StageInput] = Field(description="The stages, in the order they are applied.")

    def __init__(self, stages: Sequence[StageSpec]) -> None:
        fields: dict[str, Any] = {"stages": stages}
        super().__init__(**fields)

    def __call__(self, sample: Sample) -> StageResult:
        """Returns what the last stage returns; None or `REMOVE` if one of them did.

        A new index that a stage gives stays with the sample, unless a later one gives another.
        """
        index: int | None = None
        for stage in self.stages:
            result = stage(sample)
            if result is None or isinstance(result, Removal):
                return result
            if isinstance(result, tuple):
                sample, index = result
            else:
                sample = result
        return sample if index is None else (sample, index)


class StageLambda(SampleStage, title="lambda"):
    """Applies a callable. Only from Python: no specification can name one."""

    from_text: ClassVar[bool] = False

    func: Callable[[Sample], StageResult] = Field(
        description="The callable that takes a sample and returns a sample, None, a sample and "
        "its new index, or `REMOVE`."
    )

    def __init__(self, func: Callable[[Sample], StageResult]) -> None:
        fields: dict[str, Any] = {"func": func}
        super().__init__(**fields)

    def __call__(self, sample: Sample) -> StageResult:
        """Returns what the callable returns."""
        return self.func(sample)


def applied(stage: SampleStage, sample: Sample, idx: int) -> Sample:
    """Applies a stage where the result stays in its place: an empty sample for None or `REMOVE`.

    Raises:
        SampleError: If the stage gives the sample a new index.
    """
    result = stage(sample)
    if result is None or isinstance(result, Removal):
        return EMPTY_SAMPLE
    if isinstance(result, tuple):
        raise SampleError(
            f"sample {idx} was given the new index {result[1]}, but a sequence cannot move "
            "samples: use `select` or `sort`, or `process_samples` to write them elsewhere."
        )
    return result


# -- functions as stages ---------------------------------------------------------------------

StageFunction = Callable[..., StageResult]


class FunctionStage(SampleStage):
    """A stage made of a function by `sample_stage`; its fields are the function's arguments."""

    function: ClassVar[StageFunction]

    def __call__(self, sample: Sample) -> StageResult:
        """Calls the function with the sample and this stage's arguments."""
        return type(self).function(sample, **{n: getattr(self, n) for n in type(self).model_fields})


@overload
def sample_stage(function: StageFunction) -> type[FunctionStage]: ...
@overload
def sample_stage(*, title: str | None = None) -> Callable[[StageFunction], type[FunctionStage]]: ...
def sample_stage(
    function: StageFunction | None = None, *, title: str | None = None
) -> type[FunctionStage] | Callable[[StageFunction], type[FunctionStage]]:
    """Makes a stage class of a function `(sample, **arguments) -> StageResult`.

    The function's other arguments become the stage's fields, checked by their annotations:

        @sample_stage
        def brighten(sample: Sample, amount: int = 10) -> Sample:
            image = sample["image"]().astype(int) + amount
            return sample.set_value("image", image.clip(0, 255).astype("uint8"))

        brighten(amount=20)(sample)          # in Python
        {"my_package.cleaning:brighten": 20}  # in a list of operations

    Args:
        function: The function, where the decorator is used without parentheses.
        title: A short name for lists of operations.

    Raises:
        TypeError: If the function has no argument for the sample, or takes `*args` or `**kwargs`.
        ValueError: If another stage has this title.
    """
    if function is None:
        return lambda func: _stage_of_function(func, title)
    return _stage_of_function(function, title)


def _stage_of_function(function: StageFunction, title: str | None) -> type[FunctionStage]:
    parameters = list(inspect.signature(function, eval_str=True).parameters.values())
    for parameter in parameters:
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            raise TypeError(
                f"{function.__qualname__} takes {parameter}: a stage's arguments must be named."
            )
    if not parameters:
        raise TypeError(f"{function.__qualname__} takes no argument, expected the sample.")
    annotations = {p.name: Any if p.annotation is p.empty else p.annotation for p in parameters[1:]}
    namespace = {
        "__module__": function.__module__,
        "__qualname__": function.__qualname__,
        "__doc__": function.__doc__,
        "__annotations__": annotations,
        "function": staticmethod(function),
        **{p.name: p.default for p in parameters[1:] if p.default is not p.empty},
    }
    config = {"title": title} if title else {}
    metaclass: Any = type(FunctionStage)
    return cast(
        type[FunctionStage], metaclass(function.__name__, (FunctionStage,), namespace, **config)
    )


# -- the registry ----------------------------------------------------------------------------


def known_stages() -> dict[str, type[SampleStage]]:
    """The stages that a specification can name: those of this package, and registered ones."""
    _load_providers()
    return {name: cls for name, cls in sorted(_STAGES.items()) if cls.from_text}


def stage_class(name: str) -> type[SampleStage]:
    """The class of a stage's name, or of ``package.module:name``.

    Raises:
        PipeBuildingError: If there is none; the message has the names that there are.
    """
    if name not in _STAGES:
        if ":" in name:
            return _import_class(name)
        _load_providers()
    if name not in _STAGES:
        known = sorted(_STAGES)
        raise PipeBuildingError(
            f"no stage {name!r}.{suggestion(name, known)} Known stages: {', '.join(known)}; "
            "your own are named 'package.module:name'."
        )
    return _STAGES[name]


def _import_class(path: str) -> type[SampleStage]:
    member = import_member(path)
    if not (isinstance(member, type) and issubclass(member, SampleStage)):
        raise PipeBuildingError(
            f"{path!r} is not a stage: expected a subclass of SampleStage, or a function "
            "decorated with sample_stage."
        )
    if inspect.isabstract(member) or member is FunctionStage:
        raise PipeBuildingError(f"{path!r} is abstract: it does not define __call__.")
    return member


def _from_pair(name: Any, arguments: Any) -> SampleStage:
    cls = stage_class(str(name))
    if cls is StageCompose and isinstance(arguments, list | tuple):
        return _compose([resolve_stage(one) for one in arguments])
    args, kwargs = split_arguments(arguments)
    return construct(cls, str(name), args, kwargs)


def _compose(stages: list[SampleStage]) -> SampleStage:
    return stages[0] if len(stages) == 1 else StageCompose(stages=stages)


def _parts(stage: SampleStage) -> list[SampleStage]:
    return stage.stages if isinstance(stage, StageCompose) else [stage]
