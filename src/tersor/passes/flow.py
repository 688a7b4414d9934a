"""How values flow through a network: which module's or function's result goes where.

Ours. `torch.fx` tells it without data where it can trace the network; where it cannot (branches on values, ...), one
batch is run and every call noted. Both give a `torch.fx.Graph`, so that passes read one kind of graph.
"""

from __future__ import annotations

import copy
import fnmatch
import inspect
import itertools
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import fx, nn
from torch.nn.utils import parametrize
from torch.overrides import TorchFunctionMode

from tersor.errors import TersorError
from tersor.tune.batches import Batch
from tersor.user.faults import described

if TYPE_CHECKING:
    from tersor.passes.work import Work

_SHAPES = {"size", "dim", "ndim", "shape", "dtype", "device", "numel", "is_floating_point", "requires_grad"}


class Flow:
    """A network's graph, read by passes.

    Attributes:
        nodes: in the order of execution.
        modules: by path.
    """

    def __init__(self, network: nn.Module, graph: fx.Graph) -> None:
        self.graph = graph
        self.nodes = list(graph.nodes)
        self.modules = dict(network.named_modules())
        self._numbers: set[fx.Node] = set()  # what asks for shapes and types, and what only follows from these
        for node in self.nodes:
            inputs = node.all_input_nodes
            if operation(node) in _SHAPES or (inputs and node.op != "output" and self._numbers.issuperset(inputs)):
                self._numbers.add(node)
        self._calls = Counter(str(node.target) for node in self.nodes if node.op == "call_module")
        self._alone = {str(node.target) for node in self.nodes if node.op == "get_attr"}
        self._places = Counter(id(module) for _, module in network.named_modules(remove_duplicate=False))
        self._names: dict[int, list[str]] = {}
        for name, tensor in [*network.named_parameters(remove_duplicate=False),
                             *network.named_buffers(remove_duplicate=False)]:  # fmt: skip
            self._names.setdefault(id(tensor), []).append(name)

    def module(self, node: fx.Node) -> nn.Module | None:
        """The module that a node calls, or None for a function, an input, the output."""
        return self.modules.get(str(node.target)) if node.op == "call_module" else None

    def readers(self, node: fx.Node) -> list[fx.Node]:
        """The nodes that use a node's values; those that only ask for its shape or type are left out."""
        return [user for user in node.users if user not in self._numbers]

    def sources(self, node: fx.Node) -> list[fx.Node]:
        """The nodes whose values a node uses, parameters and numbers taken from shapes left out."""
        return [n for n in node.all_input_nodes if n.op != "get_attr" and n not in self._numbers]

    def why_not(self, path: str, exclude: Sequence[str] = ()) -> str:
        """Why this module's tensors must not be changed by themselves: a few words, or nothing if they may be."""
        module = self.modules[path]
        if parametrize.is_parametrized(module):
            return "its weights are computed"
        if self._calls[path] != 1:
            return f"it is called {self._calls[path]} times"
        if self._places[id(module)] > 1:
            return "it stands in several places"
        for leaf, tensor in [*module.named_parameters(), *module.named_buffers()]:
            name = f"{path}.{leaf}"
            if len(self._names.get(id(tensor), ())) > 1:
                return f"its {leaf} is tied to another's"
            if name in self._alone:
                return f"its {leaf} is used outside of it too"
            if any(fnmatch.fnmatchcase(name, pattern) for pattern in exclude):
                return "it is excluded"
        return ""


def operation(node: fx.Node) -> str:
    """What a node does, by name: `relu`, `add`, `flatten`, `shape`; in-place or not, method or function alike."""
    if node.op not in ("call_function", "call_method"):
        return str(node.op)
    name = node.target if isinstance(node.target, str) else getattr(node.target, "__name__", "")
    if name == "getattr":
        name = str(node.args[1])
    if name == "__get__":
        name = getattr(getattr(node.target, "__self__", None), "__name__", name)
    return {"iadd": "add", "radd": "add"}.get(name.strip("_"), name.strip("_"))


def tell_left(work: Work, what: str, reasons: Mapping[str, str]) -> None:
    """Tell what a pass left and why: a line for each reason.

    Args:
        work: takes the lines.
        what: was not done, in words that follow names: `not folded`.
        reasons: by name of a module.
    """
    names: dict[str, list[str]] = {}
    for name, why in reasons.items():
        names.setdefault(why, []).append(name)
    for why, found in names.items():
        said = ", ".join(found) if len(found) < 4 else f"{', '.join(found[:2])} and {len(found) - 2} more"
        work.tell(f"{said}: {what}: {why}")


def flow_of(work: Work) -> Flow:
    """The flow of a work's network as it is now.

    Raises:
        TersorError: it cannot be told without data, and there are none; or the batch does not fit.
    """
    network = work.network
    batch = None if work.data is None else work.example()
    try:
        return Flow(network, _traced(network, batch))
    except Exception as error:  # whatever the network's own code raises when it meets symbols
        if batch is None:
            raise TersorError(
                f"the network cannot be followed without data ({described(error)}); give batches of what it takes"
            ) from error
    return Flow(network, recorded(network, batch))


def _traced(network: nn.Module, batch: Batch | None) -> fx.Graph:
    """The graph by symbols. A copy is traced, with the same tensors, as symbols may stay behind in attributes."""
    tensors = itertools.chain(network.parameters(), network.buffers())
    shadow = copy.deepcopy(network, {id(tensor): tensor for tensor in tensors})
    signature = inspect.signature(shadow.forward)
    given = {} if batch is None else signature.bind(*batch.args, **batch.kwargs).arguments
    defaults = {
        name: item.default
        for name, item in signature.parameters.items()
        if item.default is not item.empty and name not in given
    }
    return fx.Tracer().trace(shadow, concrete_args=defaults or None)


class _Recorder(TorchFunctionMode):
    """Notes every call of a torch function outside of torch's own modules, and of these modules as a whole."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.graph = fx.Graph()
        self.network = network
        self.names = {id(p): name for name, p in [*network.named_parameters(), *network.named_buffers()]}
        self.known: dict[int, tuple[fx.Node, torch.Tensor]] = {}  # tensors are held: an id must not come again
        self.inside = 0

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if not self.inside:
            self.note("call_function", func, args, kwargs or {}, result)
        return result

    def note(self, op: str, target: Any, args: Any, kwargs: Any, result: Any) -> None:
        """A node, whose tensors later nodes find."""
        node = self.graph.create_node(op, target, tuple(self.mapped(list(args))), self.mapped(dict(kwargs)))
        for tensor in _tensors(result):
            self.known[id(tensor)] = node, tensor

    def mapped(self, value: Any) -> Any:
        """A value with nodes in place of tensors."""
        if isinstance(value, torch.Tensor):
            if id(value) not in self.known:
                name = self.names.get(id(value))
                made = self.graph.get_attr(name) if name else self.graph.placeholder(f"value_{len(self.known)}")
                self.known[id(value)] = made, value
            return self.known[id(value)][0]
        if isinstance(value, Mapping):
            return {str(key): self.mapped(item) for key, item in value.items()}
        if isinstance(value, (list, tuple)):
            items = [self.mapped(item) for item in value]
            return items if isinstance(value, list) else tuple(items)
        return value


@torch.no_grad()
def recorded(network: nn.Module, batch: Batch) -> fx.Graph:
    """The graph of one call. What depends on values is as it was for this batch.

    Raises:
        TersorError: the batch does not fit the network.
    """
    recorder = _Recorder(network)

    def enter(*_: Any) -> None:
        recorder.inside += 1

    def leave(path: str, args: Any, kwargs: Any, result: Any) -> None:
        recorder.inside -= 1
        if not recorder.inside:
            recorder.note("call_module", path, args, kwargs, result)

    hooks: list[Any] = []
    for path, module in network.named_modules():
        if type(module).__module__.startswith("torch.nn") and not isinstance(module, nn.Sequential) and path:
            hooks.append(module.register_forward_pre_hook(enter))
            hooks.append(
                module.register_forward_hook(
                    lambda _, args, kwargs, result, path=path: leave(path, args, kwargs, result), with_kwargs=True
                )
            )
    try:
        with recorder:
            result = batch.call(network)
    finally:
        for hook in hooks:
            hook.remove()
    recorder.graph.output([recorder.mapped(tensor) for tensor in _tensors(result)])
    return recorder.graph


def _tensors(value: Any) -> list[torch.Tensor]:
    """All tensors in a result: in lists, mappings, and objects with attributes."""
    if isinstance(value, torch.Tensor):
        return [value]
    if isinstance(value, Mapping):
        return [tensor for item in value.values() for tensor in _tensors(item)]
    if isinstance(value, (list, tuple)):
        return [tensor for item in value for tensor in _tensors(item)]
    return [tensor for item in getattr(value, "__dict__", {}).values() for tensor in _tensors(item)]
