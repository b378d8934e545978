"""Samples as typed models: an entity names the items that an action needs, and gives them back."""

import inspect
from collections.abc import Callable, Mapping
from typing import Any, Generic, Self, TypeVar, cast, get_origin, overload

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    PrivateAttr,
    TypeAdapter,
    ValidationInfo,
    create_model,
    field_validator,
    model_validator,
)

from prefect_pipestream.items import Item, UnknownItem
from prefect_pipestream.sequences.building import import_member, suggestion
from prefect_pipestream.sequences.sample import Sample
from prefect_pipestream.sequences.stage import SampleStage

ItemT = TypeVar("ItemT", bound=Item[Any])
ValueT = TypeVar("ValueT")
ActionT = TypeVar("ActionT", bound=Callable[..., Any])

_ACTIONS: dict[str, Callable[..., Any]] = {}


class ParsedItem(BaseModel, Generic[ItemT, ValueT]):
    """An item together with its value as a checked type: `ParsedItem[YamlMetadataItem, Box]`.

    As the field of an entity it takes an item, a value of the type, or what the type is made of.
    """

    model_config = ConfigDict(arbitrary_types_allowed=True)

    raw_item: ItemT
    parsed_value: ValueT

    @model_validator(mode="before")
    @classmethod
    def _parsed(cls, value: Any) -> Any:
        if isinstance(value, cls) or (
            isinstance(value, Mapping) and value.keys() == {"raw_item", "parsed_value"}
        ):
            return value
        if not isinstance(value, Item):
            kind = cls.parsed_value_type()
            is_parsed = isinstance(kind, type) and isinstance(value, kind)
            parsed = value if is_parsed else cls.make_parsed_value(value)
            return {"raw_item": cls.make_raw_item(parsed), "parsed_value": parsed}
        if not isinstance(value, cls.raw_item_type()):
            raise ValueError(f"expected a {cls.raw_item_type().__name__}, not {value!r}")
        return {"raw_item": value, "parsed_value": cls.make_parsed_value(value())}

    def __call__(self) -> ValueT:
        """Returns the checked value."""
        return self.parsed_value

    @property
    def value(self) -> ValueT:
        """The checked value."""
        return self.parsed_value

    @classmethod
    def raw_item_type(cls) -> type[Item[Any]]:
        """Returns the item class."""
        annotation = cls.model_fields["raw_item"].annotation
        return cast("type[Item[Any]]", get_origin(annotation) or annotation)

    @classmethod
    def parsed_value_type(cls) -> Any:
        """Returns the type of the value."""
        return cls.model_fields["parsed_value"].annotation

    @classmethod
    def make_parsed_value(cls, value: Any) -> ValueT:
        """Checks a value against the type; overwrite it to parse otherwise."""
        adapter: TypeAdapter[ValueT] = TypeAdapter(cls.parsed_value_type())
        return adapter.validate_python(value)

    @classmethod
    def value_to_item_data(cls, value: Any) -> Any:
        """Returns what the item is to hold of a value; overwrite it to write otherwise."""
        return TypeAdapter(type(value)).dump_python(value)

    @classmethod
    def make_raw_item(cls, value: Any) -> ItemT:
        """Makes the item of a value."""
        kind = cls.raw_item_type()
        kind = UnknownItem if kind is Item else kind
        return cast("ItemT", kind.make_new(cls.value_to_item_data(value)))

    @classmethod
    def make_new(cls, value: Any) -> ItemT:
        """Makes the item of a value."""
        return cls.make_raw_item(value)

    @classmethod
    def validate(cls, value: Any) -> Self:
        """Makes the parsed item of an item or a value.

        Raises:
            ValidationError: If the value is none of the type.
        """
        return cls.model_validate(value)


class ParsedData(ParsedItem[Item[Any], ValueT], Generic[ValueT]):
    """A parsed item of any item class: `ParsedData[Box]`."""


class ModelDynamicKey:
    """A key of an entity that is known only when the action runs; see `DynamicKey`."""

    __slots__ = ("default", "default_factory", "extra_kwargs", "item_tp", "owner")

    def __init__(
        self,
        item_tp: Any,
        default: Any = ...,
        default_factory: Callable[[], Any] | None = None,
        extra_kwargs: Mapping[str, Any] = {},  # it is only read
    ) -> None:
        self.item_tp = item_tp
        self.default = default
        self.default_factory = default_factory
        self.extra_kwargs = extra_kwargs
        self.owner: BaseEntity

    def validate(self, key: str) -> Any:
        """Returns the owner's item of this key, checked, or the default.

        Raises:
            ValidationError: If it is missing, or of another type.
        """
        options = {**self.extra_kwargs, "default_factory": self.default_factory}
        if self.default_factory is None:
            options["default"] = options.pop("default_factory") or self.default
        field: Any = (self.item_tp, Field(alias=key, **options))
        parser = create_model("DynamicKey", value=field)
        items = dict(self.owner)
        found = parser.model_validate({key: items[key]} if key in items else {})
        return dict(found)["value"]


def DynamicKey(  # it reads as a class where it is used
    item_tp: Any,
    default: Any = ...,
    *,
    default_factory: Callable[[], Any] | None = None,
    **field_kwargs: Any,
) -> Any:
    """Declares a key that is known only when the action runs, as a private attribute.

        class Picture(BaseEntity):
            _any = DynamicKey(PngImageItem)

        picture._any.validate("image")()

    Args:
        item_tp: The item class, or a `ParsedItem`.
        default: What stands for a missing item; by default it is an error.
        default_factory: Makes what stands for a missing item.
        **field_kwargs: More of what `pydantic.Field` takes.

    Raises:
        ValueError: If both defaults are given.
    """
    if default is not ... and default_factory is not None:
        raise ValueError("a DynamicKey has one default: give `default` or `default_factory`.")
    return PrivateAttr(ModelDynamicKey(item_tp, default, default_factory, field_kwargs))


class BaseEntity(BaseModel):
    """A sample as a model: the fields are keys, their types item classes or parsed items.

    Other items of the sample are kept as they are.
    """

    model_config = ConfigDict(extra="allow", arbitrary_types_allowed=True)

    def model_post_init(self, context: Any) -> None:
        """Lets each dynamic key know its entity."""
        for name in type(self).__private_attributes__:
            key = getattr(self, name, None)
            if isinstance(key, ModelDynamicKey):
                mine = ModelDynamicKey(
                    key.item_tp, key.default, key.default_factory, key.extra_kwargs
                )
                mine.owner = self
                setattr(self, name, mine)

    @classmethod
    def merge(cls, __other__: "BaseEntity", /, **kwargs: Any) -> Self:
        """Makes an entity of another one, with some items put in place of its own.

        A value for a key that is no field goes into an item of the class that is there.
        """
        mine: dict[str, Any] = dict(__other__)
        for key, value in kwargs.items():
            before = None if key in cls.model_fields else mine.get(key)
            if isinstance(before, Item) and not isinstance(value, Item):
                value = before.make_new(value)
            mine[key] = value
        return cls(**mine)


def _as_action(value: Any) -> Callable[..., Any]:
    """An action itself, or the registered one of this name or at `package.module:name`."""
    if isinstance(value, str):
        value = _registered(value)
    if not callable(value):
        raise ValueError(f"{value!r} is no action: expected a callable, or the name of one")
    if not _parameters(value):
        raise ValueError("an action takes the entity as its first argument")
    return cast("Callable[..., Any]", value)


def _registered(name: str) -> Callable[..., Any]:
    if ":" in name:
        action = import_member(name)
        if action in _ACTIONS.values():  # a text never names just any callable
            return cast("Callable[..., Any]", action)
    if name not in _ACTIONS:
        raise ValueError(
            f"there is no action {name!r}.{suggestion(name, _ACTIONS)} Register it by "
            "`register_action`, or name it 'package.module:name'"
        )
    return _ACTIONS[name]


def _parameters(action: Callable[..., Any]) -> list[inspect.Parameter]:
    return list(inspect.signature(action, eval_str=True).parameters.values())


class EntityAction(BaseModel):
    """An action: a callable from an entity to an entity, and the entity that it takes."""

    model_config = ConfigDict(extra="forbid", arbitrary_types_allowed=True)

    action: Callable[..., Any] = Field(description="The callable, or the name of one.")
    input_type: type[BaseEntity] = Field(
        BaseEntity, validate_default=True, description="By default as the callable's annotation."
    )

    @model_validator(mode="before")
    @classmethod
    def _wrapped(cls, value: Any) -> Any:
        return value if isinstance(value, Mapping | EntityAction) else {"action": value}

    @field_validator("action", mode="before")
    @classmethod
    def _found(cls, value: Any) -> Callable[..., Any]:
        return _as_action(value)

    @field_validator("input_type")
    @classmethod
    def _annotated(cls, given: type[BaseEntity], info: ValidationInfo) -> type[BaseEntity]:
        if "action" not in info.data:
            return given
        first = _parameters(info.data["action"])[0]
        expected = given if first.annotation is first.empty else first.annotation
        if not (isinstance(expected, type) and issubclass(expected, BaseEntity)):
            raise ValueError(f"the action takes {expected!r}, expected a subclass of BaseEntity")
        if given is not BaseEntity and not issubclass(given, expected):
            raise ValueError(f"the action takes {expected.__name__}, not {given.__name__}")
        return expected if given is BaseEntity else given


@overload
def register_action(__action: ActionT, /) -> ActionT: ...
@overload
def register_action(
    *, title: str | None = None, description: str | None = None
) -> Callable[[ActionT], ActionT]: ...
def register_action(
    __action: Any = None, /, *, title: str | None = None, description: str | None = None
) -> Any:
    """Registers an action, so that it can be named: `{"entity": "my-action"}`.

    Args:
        __action: The action, where the decorator is used without parentheses.
        title: Its name; by default that of the function, by which it is found in any case.
        description: What it does; by default its docstring.

    Raises:
        ValueError: If another action has the name.
    """

    def register(action: ActionT) -> ActionT:
        for name in {title or action.__name__, action.__name__}:
            if _ACTIONS.get(name, action) is not action:
                raise ValueError(f"the action {name!r} is registered already: choose another name.")
            _ACTIONS[name] = action
        action.__doc__ = description or action.__doc__
        return action

    return register if __action is None else register(__action)


class StageEntity(SampleStage, title="entity"):
    """Applies an action to the sample as an entity."""

    entity_action: EntityAction = Field(
        description="The name of a registered action, or {action: name, input_type: …}."
    )

    def __init__(self, entity_action: Any) -> None:
        fields: dict[str, Any] = {"entity_action": entity_action}
        super().__init__(**fields)

    def __call__(self, sample: Sample) -> Sample:
        """Returns a sample of the items of the entity that the action returns.

        Raises:
            ValidationError: If the sample has not the items that the entity needs.
        """
        entity = self.entity_action.input_type(**sample)
        result = self.entity_action.action(entity)
        items = {name: _item_of(value) for name, value in dict(result).items()}
        return Sample({name: item for name, item in items.items() if item is not None})


def _item_of(value: Any) -> Any:
    return value.raw_item if isinstance(value, ParsedItem) else value
