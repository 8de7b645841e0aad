# cython: binding=False, embedsignature=True, embedsignature.format=clinic
"""Which node holds which prefix, as a router's user tells it and asks it: arrays in, one call, arrays out."""
import operator
from collections.abc import Mapping

import numpy as np

from libc.stdint cimport int32_t, uint32_t, uint64_t
from libc.string cimport memcpy
from libcpp.vector cimport vector

cimport numpy as cnp

from infcore._core.base cimport finite
from infcore._core.fleet cimport whole
from infcore._core.kv cimport integers, word
from infcore._core.prefix_events cimport EngineEvents, tier_of
from infcore._core.route cimport Router
from infcore._cpp.base cimport TimeNs, check_not_forked, fork_generation, to_ns
from infcore._cpp.kv cimport ConstNames
from infcore._cpp.prefix cimport KvTier, PrefixStats, RouterPrefix, max_blocks_most, max_names_most
from infcore._cpp.route cimport PrefixConfig

from infcore.errors import InvalidArgument, InvalidType

cnp.import_array()

_MODES = ("exact", "approximate")
_OPTIONS = frozenset(("mode", "max_blocks", "host_credit", "disk_credit", "ttl_s", "max_engine_blocks"))
cdef object _device = "device"


cdef dict options_of(object prefix):
    if isinstance(prefix, str):
        prefix = {"mode": prefix}
    if not isinstance(prefix, Mapping):
        raise InvalidType(f"prefix is {type(prefix).__name__}; allowed: a str or a mapping of options")
    for name in prefix:
        if name not in _OPTIONS:
            raise InvalidArgument(f"prefix has {name!r}; allowed: {', '.join(sorted(_OPTIONS))}")
    if prefix.get("mode", "exact") not in _MODES:
        raise InvalidArgument(f"prefix is {prefix['mode']!r}; allowed: {', '.join(_MODES)}")
    return dict(prefix)


def config_of(prefix) -> tuple:
    """Router(prefix=...) checked: approximate, max_blocks, host_credit, disk_credit, ttl_ns."""
    cdef PrefixConfig config
    cdef dict options = options_of(prefix)
    credits = []
    for name, usual in (("host_credit", config.host_credit), ("disk_credit", config.disk_credit)):
        credits.append(finite(name, options.get(name, usual), 0.0))
        if credits[-1] > 1.0:
            raise InvalidArgument(f"{name} is {credits[-1]}; allowed: 0 to 1")
    whole("max_engine_blocks", options.get("max_engine_blocks", 1), 1, max_names_most)  # used when first asked for
    return (options.get("mode") == "approximate",
            whole("max_blocks", options.get("max_blocks", config.max_blocks), 1, max_blocks_most),
            *credits, to_ns(finite("ttl_s", options["ttl_s"], 1e-6)) if "ttl_s" in options else config.ttl_ns)


def prefix_of(Router router) -> Prefix:
    """A router's own, for Router.prefix."""
    cdef Prefix own = Prefix.__new__(Prefix)
    own.c_obj.reset(new RouterPrefix(router.c_obj.get()[0]))
    own.router = router
    own.fleet = router.fleet
    own.clock = router.clock
    own.events = EngineEvents(router.fleet, options_of(router.prefix_options).get("max_engine_blocks", 1 << 20))
    own.forgets = options_of(router.prefix_options).get("mode") == "approximate"
    own.built_under = router.built_under
    return own


cdef cnp.ndarray to_array(const vector[int32_t]& column):
    cdef cnp.npy_intp n = column.size()
    cdef cnp.ndarray out = cnp.PyArray_EMPTY(1, &n, cnp.NPY_INT32, 0)
    if n:
        memcpy(cnp.PyArray_DATA(out), column.data(), n * sizeof(int32_t))
    return out


cdef cnp.ndarray blocks_of(object blocks):
    """An array of uint64 as it is; other whole numbers converted. Lists by themselves: NumPy makes some of them floats."""
    if not isinstance(blocks, (list, tuple)):
        return integers("blocks", blocks, cnp.NPY_UINT64)
    try:
        return np.fromiter(map(operator.index, blocks), np.uint64, len(blocks))
    except TypeError:
        raise InvalidType("blocks has an entry that is no int; allowed: ints from 0 to 2**64 - 1") from None
    except OverflowError:
        raise InvalidArgument(f"blocks has {min(blocks)} to {max(blocks)}; allowed: 0 to 2**64 - 1") from None


cdef inline ConstNames span_of(cnp.ndarray names) noexcept:
    return ConstNames(<const uint64_t*>cnp.PyArray_DATA(names), cnp.PyArray_DIM(names, 0))


cdef class Prefix:
    """Which node holds which prefix: Router.prefix. Told what nodes store and evict, or by their engines' own events.

    Blocks   (n,) uint64 as block_hashes gives them, each right after the one before it; other whole numbers are
             converted. An array of uint64 is read where it lies, during the call
    Nodes    ids or names. A node that is removed from the fleet, or whose id is another's by now, holds nothing
    Tiers    "device", "host", "disk": what a block saves a request is counted by Router(prefix={"host_credit": ...})
    Full     max_blocks, at 40 bytes each at most: the leaf that was stored longest ago is forgotten first
    Threads  any
    Raises   UnknownName for a node, InvalidArgument, InvalidType; ForkedProcess after a fork
    Cost     match: a comparison a block and O(nodes / 64) where the holders change. stored, removed: O(1) a block
    """

    def __init__(self):
        raise InvalidType("Prefix is made by a Router; allowed: router.prefix")

    cdef RouterPrefix* alive(self) except NULL:
        if self.built_under != fork_generation():
            check_not_forked(self.built_under, "Router")
        return self.c_obj.get()

    def stored(self, node, blocks, *, tier="device", after=None) -> int:
        """The node holds these blocks now. Returns how many of them are kept: all, unless the index is too small.

        after   the block before the first, where that is not the first of its prompt
        """
        cdef uint64_t before = 0
        cdef const uint64_t* parent = NULL
        cdef cnp.ndarray names = blocks_of(blocks)
        cdef KvTier where = KvTier.device if tier is _device else tier_of("tier", tier)
        if after is not None:
            before = word("after", after)
            parent = &before
        return self.alive().stored(self.fleet.node_of(node), span_of(names), where, parent)

    def removed(self, node, blocks, *, tier="device") -> int:
        """The node gave these blocks up on that tier. Returns how many of them it was known to hold there."""
        cdef cnp.ndarray names = blocks_of(blocks)
        return self.alive().removed(self.fleet.node_of(node), span_of(names), tier_of("tier", tier))

    def cleared(self, node) -> None:
        """The node holds nothing any more."""
        self.alive().cleared(self.fleet.node_of(node))

    def match(self, blocks):
        """Who holds the beginning of a prompt.

        Returns  (node ids, leading blocks held anywhere): two (m,) int32, by id, for the nodes that hold at least one
        """
        cdef cnp.ndarray names = blocks_of(blocks)
        cdef TimeNs now_ns = self.clock.now_ns() if self.forgets else 0
        self.alive().match(span_of(names), now_ns, self.nodes, self.held)
        return to_array(self.nodes), to_array(self.held)

    def apply(self, node, event) -> int:
        """What the node's engine says of its blocks, by its own ids: vLLM's and SGLang's BlockStored, BlockRemoved and
        AllBlocksCleared, or a KVEventBatch of them.

        event    an object with their attributes, a mapping, or a list as msgpack decodes it. Its tokens name its blocks
                 as block_hashes(tokens, block_size, salt=prefix_salt(lora)) does: hash requests by the engine's block
                 size. Blocks with other keys (images, salts) are kept apart from those of the same tokens without
        Returns  how many blocks came or went. What follows a parent that is not known, and ids that are not, are
                 counted in stats()["unknown"] and left out
        Bounded  by Router(prefix={"max_engine_blocks": ...}): so many ids of all engines, 27 bytes each
        """
        cdef RouterPrefix* index = self.alive()
        return self.events.apply(index[0], self.fleet.node_of(node), event)

    def stats(self) -> dict:
        """blocks (that some node said it holds), picked_blocks (believed of own picks), evicted, unknown (see apply),
        engine_blocks (ids of engines that are known), bytes."""
        cdef PrefixStats stats = self.alive().stats()
        return {"blocks": stats.n_blocks, "picked_blocks": stats.n_picked_blocks, "evicted": stats.n_evicted,
                "unknown": self.events.n_unknown, "engine_blocks": self.events.c_obj.get().n_names(),
                "bytes": stats.n_bytes + self.events.c_obj.get().n_bytes()}
