"""Read the pickle inside a PyTorch file without running it.

A pickle is a program: Python's own reader calls whatever it names. This one walks the opcodes and knows only those that
a dictionary of tensors takes; what they rebuild is described, never built. Anything else is rejected by its name.
"""

from __future__ import annotations

import math
import pickletools
from dataclasses import dataclass
from typing import Any, Callable

_MAPPING = ("collections", "OrderedDict")
_TENSOR = ("torch._utils", "_rebuild_tensor_v2")
_PARAMETER = ("torch._utils", "_rebuild_parameter")
# torch's storage class → what numpy calls its numbers; bfloat16 it does not know.
STORAGES = {
    ("torch", "HalfStorage"): "<f2",
    ("torch", "FloatStorage"): "<f4",
    ("torch", "DoubleStorage"): "<f8",
    ("torch", "BFloat16Storage"): "bfloat16",
}
_KNOWN = {_MAPPING, _TENSOR, _PARAMETER, *STORAGES}
_WIDTH = 80


class PickleError(Exception):
    """The pickle is damaged, or asks for what no dictionary of tensors needs; the message says which."""


@dataclass(frozen=True)
class Storage:
    """The numbers that tensors share: `kind` is a value of `STORAGES`, `key` the name of the file that holds them."""

    kind: str
    key: str
    count: int


@dataclass(frozen=True)
class StoredTensor:
    """A view of a storage; offset and strides count numbers, not bytes."""

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


@dataclass(frozen=True)
class _Global:
    """Something that a pickle names in order to call it."""

    name: tuple[str, str]


def load(data: bytes) -> Any:
    """Return what a pickle describes: dictionaries, lists, tuples, texts, numbers and `StoredTensor`s.

    Raises `PickleError`. The result may hold one object in many places, so never walk or print it as a whole.
    """
    machine = _Machine()
    try:
        for opcode, argument, _ in pickletools.genops(data):
            if opcode.name == "STOP":
                return machine.stack.pop()
            machine.step(opcode.name, argument)
    except (ValueError, IndexError, KeyError, TypeError, UnicodeDecodeError) as error:
        raise PickleError(f"its pickle is damaged ({_short(error)})") from None
    raise PickleError("its pickle is damaged (it does not end)")


class _Machine:
    """The state of the walk: a stack, the stacks below each mark, and the memo."""

    def __init__(self) -> None:
        self.stack: list[Any] = []
        self._below: list[list[Any]] = []
        self._memo: dict[int, Any] = {}

    def step(self, name: str, argument: Any) -> None:
        """Do what one opcode says. Raises `PickleError` for one that is not known here."""
        if name in _VALUES:
            self.stack.append(_VALUES[name](argument))
        elif name in _ACTIONS:
            _ACTIONS[name](self, argument)
        elif name not in ("PROTO", "FRAME"):
            raise PickleError(f"its pickle uses {name}, which no dictionary of tensors needs")

    def mark(self, _: Any) -> None:
        self._below.append(self.stack)
        self.stack = []

    def since_mark(self) -> list[Any]:
        items, self.stack = self.stack, self._below.pop()
        return items

    def tuple(self, _: Any) -> None:
        items = self.since_mark()
        self.stack.append(tuple(items))

    def tuple_of(self, count: int) -> None:
        items = tuple(self.stack.pop() for _ in range(count))
        self.stack.append(items[::-1])

    def put(self, index: int) -> None:
        self._memo[index] = self.stack[-1]

    def memoize(self, _: Any) -> None:
        self._memo[len(self._memo)] = self.stack[-1]

    def get(self, index: int) -> None:
        self.stack.append(self._memo[index])

    def append(self, _: Any) -> None:
        item = self.stack.pop()
        _expect(self.stack[-1], list).append(item)

    def appends(self, _: Any) -> None:
        items = self.since_mark()
        _expect(self.stack[-1], list).extend(items)

    def set_item(self, _: Any) -> None:
        value, key = self.stack.pop(), self.stack.pop()
        self._set(key, value)

    def set_items(self, _: Any) -> None:
        items = self.since_mark()
        for key, value in zip(items[::2], items[1::2]):
            self._set(key, value)

    def _set(self, key: Any, value: Any) -> None:
        if type(key) not in (str, int):
            raise PickleError("its pickle has a key that is neither a text nor a number")
        _expect(self.stack[-1], dict)[key] = value

    def named(self, module_and_name: str) -> None:
        module, _, name = module_and_name.partition(" ")
        self._push_global(module, name)

    def named_on_stack(self, _: Any) -> None:
        name, module = _expect(self.stack.pop(), str), _expect(self.stack.pop(), str)
        self._push_global(module, name)

    def _push_global(self, module: str, name: str) -> None:
        if (module, name) not in _KNOWN:
            raise PickleError(
                f"its pickle asks for {_short(f'{module}.{name}')}, which no dictionary of tensors needs and which may "
                "run code: it was not run"
            )
        self.stack.append(_Global((module, name)))

    def persistent(self, _: Any) -> None:
        """Turn ('storage', class, key, device, count) into a storage."""
        what = _expect(self.stack.pop(), tuple)
        if len(what) != 5 or what[0] != "storage" or _expect(what[1], _Global).name not in STORAGES:
            raise PickleError("its pickle refers to something outside that is not a storage of tensors")
        self.stack.append(Storage(STORAGES[what[1].name], _expect(what[2], str), _count(what[4])))

    def call(self, _: Any) -> None:
        arguments = _expect(self.stack.pop(), tuple)
        called = _expect(self.stack.pop(), _Global).name
        if called == _MAPPING and not arguments:
            self.stack.append({})
        elif called == _TENSOR and len(arguments) >= 4:
            self.stack.append(_tensor(*arguments[:4]))
        elif called == _PARAMETER and arguments:
            self.stack.append(_expect(arguments[0], StoredTensor))
        else:
            raise PickleError(f"its pickle calls {'.'.join(called)} in a way that PyTorch does not")

    def build(self, _: Any) -> None:
        """Leave out what a module's state dictionary has besides its tensors: versions of modules."""
        self.stack.pop()
        _expect(self.stack[-1], dict)


_VALUES: dict[str, Callable[[Any], Any]] = {
    "EMPTY_DICT": lambda _: {},
    "EMPTY_LIST": lambda _: [],
    "EMPTY_TUPLE": lambda _: (),
    "NONE": lambda _: None,
    "NEWTRUE": lambda _: True,
    "NEWFALSE": lambda _: False,
    **dict.fromkeys(
        ("BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT", "BINUNICODE", "SHORT_BINUNICODE"), lambda value: value
    ),
}
_ACTIONS: dict[str, Callable[[_Machine, Any], None]] = {
    "MARK": _Machine.mark,
    "TUPLE": _Machine.tuple,
    "TUPLE1": lambda machine, _: machine.tuple_of(1),
    "TUPLE2": lambda machine, _: machine.tuple_of(2),
    "TUPLE3": lambda machine, _: machine.tuple_of(3),
    "BINPUT": _Machine.put,
    "LONG_BINPUT": _Machine.put,
    "MEMOIZE": _Machine.memoize,
    "BINGET": _Machine.get,
    "LONG_BINGET": _Machine.get,
    "APPEND": _Machine.append,
    "APPENDS": _Machine.appends,
    "SETITEM": _Machine.set_item,
    "SETITEMS": _Machine.set_items,
    "GLOBAL": _Machine.named,
    "STACK_GLOBAL": _Machine.named_on_stack,
    "BINPERSID": _Machine.persistent,
    "REDUCE": _Machine.call,
    "BUILD": _Machine.build,
}


def _tensor(storage: Any, offset: Any, shape: Any, strides: Any) -> StoredTensor:
    _expect(storage, Storage)
    sizes = tuple(_count(size) for size in _expect(shape, tuple))
    steps = tuple(_count(step) for step in _expect(strides, tuple))
    if len(sizes) != len(steps) or len(sizes) > 3 or 0 in sizes:
        raise PickleError("its pickle describes a tensor of a shape that Whisper does not have")
    last = _count(offset) + sum((size - 1) * step for size, step in zip(sizes, steps))
    if last >= storage.count:
        raise PickleError("its pickle describes a tensor that reaches beyond its storage")
    # A stride of 0 repeats numbers: a few bytes of storage could stand for terabytes.
    if math.prod(sizes) > storage.count:
        raise PickleError("its pickle describes a tensor of more numbers than its storage has")
    return StoredTensor(storage, offset, sizes, steps)


def _count(value: Any) -> int:
    if type(value) is not int or value < 0:
        raise PickleError("its pickle has something else where a size must be")
    return value


def _expect(value: Any, kind: type) -> Any:
    if type(value) is not kind:
        raise PickleError(f"its pickle has something else where a {kind.__name__} must be")
    return value


def _short(what: object) -> str:
    return ascii(str(what))[1:-1][:_WIDTH]
