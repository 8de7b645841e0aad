"""An engine's own KV events: their ids, parents and tokens, into the chained hashes that requests are routed by."""
from hashlib import blake2b

from libc.stdint cimport int64_t, uint32_t, uint64_t
from libcpp.vector cimport vector

cimport numpy as cnp

from infcore._core.fleet cimport Fleet, whole
from infcore._core.kv cimport integers
from infcore._cpp.base cimport NodeId
from infcore._cpp.kv cimport ConstNames
from infcore._cpp.prefix cimport EngineBlocks, KvTier, RouterPrefix, chain64, chain_start, max_names_most, stir

from infcore.errors import InvalidArgument, InvalidType

cnp.import_array()

# As the engines' classes have them; a row of msgpack has them in this order after its tag.
_STORED = ("block_hashes", "parent_block_hash", "token_ids", "block_size", "lora_id", "medium", "lora_name",
           "extra_keys", "group_idx", "kv_cache_spec_kind", "cache_salt")
_REMOVED = ("block_hashes", "medium", "group_idx")
_MEDIA = {None: "device", "GPU": "device", "CPU": "host", "CPU_PINNED": "host", "DISK": "disk", "STORAGE": "disk",
          "EXTERNAL": "disk"}
_TIERS = {"device": KvTier.device, "host": KvTier.host, "disk": KvTier.disk}
_WHOLE_CONTEXT = frozenset((None, "full_attention", "mla_attention"))  # kinds of caches that keep every block


cdef KvTier tier_of(str field, object tier) except *:
    try:
        return <KvTier><int>_TIERS[tier]
    except (KeyError, TypeError):
        raise InvalidArgument(f"{field} is {tier!r}; allowed: {', '.join(_TIERS)}") from None


cdef KvTier tier_of_medium(object medium) except *:
    if isinstance(medium, str):
        medium = str.__str__(medium)  # an enumeration of str hashes by its names
    try:
        return <KvTier><int>_TIERS[_MEDIA[medium]]
    except (KeyError, TypeError):
        raise InvalidArgument(f"medium is {medium!r}; allowed: {', '.join(map(str, _MEDIA))}") from None


cdef uint64_t digest(object value) except? 0:
    """64 bits that stand for a value by its text: the same in every process."""
    return int.from_bytes(blake2b(repr(value).encode("utf-8", "surrogatepass"), digest_size=8).digest(), "little")


cdef uint64_t id_of(object id) except? 0:
    """An engine's id: a whole number (its lowest 64 bits) or bytes."""
    if isinstance(id, int):
        return <uint64_t>(id & 0xFFFFFFFFFFFFFFFF)
    if isinstance(id, (bytes, bytearray, memoryview)):
        return int.from_bytes(blake2b(id, digest_size=8).digest(), "little")
    raise InvalidType(f"a block's id is {type(id).__name__}; allowed: an int or bytes")


def prefix_salt(lora=None, cache_salt=None) -> int:
    """The salt of block_hashes for requests of an adapter, or with a salt of their own, as Router.prefix.apply names the
    blocks of their engines' events.

    lora        the adapter's name, or its number where the engine tells no name; None: no adapter
    cache_salt  as the request gives it to its engine; None: none
    Returns     0 for neither
    """
    return 0 if lora is None and cache_salt is None else digest((lora, cache_salt))


cdef object field(object event, bint is_row, tuple names, str name):
    cdef Py_ssize_t at
    if is_row:
        at = names.index(name) + 1
        return event[at] if at < len(event) else None
    if isinstance(event, dict):
        return event.get(name)
    return getattr(event, name, None)


cdef object kind_of(object event):
    """The event's tag; None for a batch of events."""
    if isinstance(event, dict):
        kind = event.get("type", None if "events" in event else "")
        return kind if isinstance(kind, str) else None if "events" in event else repr(kind)
    if isinstance(event, (list, tuple)):
        if not event:
            return ""
        kind = event[0]
        return kind.decode(errors="replace") if isinstance(kind, bytes) else kind if isinstance(kind, str) else None
    return None if hasattr(event, "events") else type(event).__name__


cdef list ids_of(object event, bint is_row, tuple names):
    ids = field(event, is_row, names, "block_hashes")
    if not isinstance(ids, (list, tuple)):
        raise InvalidType(f"block_hashes is {type(ids).__name__}; allowed: a list of int or of bytes")
    return list(ids)


cdef class EngineEvents:
    def __cinit__(self, Fleet fleet, max_engine_blocks):
        cdef uint32_t n_nodes = fleet.c_obj.get().max_nodes()
        self.c_obj.reset(new EngineBlocks(
            n_nodes, <uint32_t>whole("max_engine_blocks", max_engine_blocks, 1, max_names_most)))
        self.fleet = fleet
        self.born.resize(n_nodes)
        self.groups = {}

    cdef size_t apply(self, RouterPrefix& index, NodeId node, object event) except? 0:
        cdef size_t n = 0
        cdef uint64_t born = self.fleet.c_obj.get().born(node)
        if born != self.born[node.value]:  # another node by this id
            self.clear(node)
            self.born[node.value] = born
        kind = kind_of(event)
        cdef bint is_row = isinstance(event, (list, tuple))
        if kind == "BlockStored":
            return self._stored(index, node, event, is_row)
        if kind == "BlockRemoved":
            return self._removed(index, node, event, is_row)
        if kind == "AllBlocksCleared":
            self.clear(node)
            index.cleared(node)
            return 0
        if kind is not None:
            raise InvalidArgument(f"event is a {kind or type(event).__name__}; allowed: BlockStored, BlockRemoved, "
                                  "AllBlocksCleared, or a batch of them")
        events = event["events"] if isinstance(event, dict) else (
            event[1] if is_row and len(event) > 1 else getattr(event, "events", None))
        if not isinstance(events, (list, tuple)):
            raise InvalidType(f"events of a batch is {type(events).__name__}; allowed: a list of events")
        for each in events:
            if kind_of(each) is None:
                raise InvalidArgument("event is a batch inside a batch; allowed: an event")
            n += self.apply(index, node, each)
        return n

    cdef int clear(self, NodeId node) except -1:
        self.c_obj.get().clear_node(node)
        self.groups.pop(node.value, None)
        return 0

    cdef bint _counts(self, NodeId node, object group, object kind, bint stored) except *:
        """Of an engine with several groups of caches, one counts: the first that keeps whole contexts."""
        if group is None:
            return True
        if node.value not in self.groups:
            if not stored or kind not in _WHOLE_CONTEXT:
                return False
            self.groups[node.value] = group
        return self.groups[node.value] == group

    cdef size_t _stored(self, RouterPrefix& index, NodeId node, object event, bint is_row) except? 0:
        cdef list ids = ids_of(event, is_row, _STORED)
        if not self._counts(node, field(event, is_row, _STORED, "group_idx"),
                            field(event, is_row, _STORED, "kv_cache_spec_kind"), True):
            return 0
        cdef KvTier tier = tier_of_medium(field(event, is_row, _STORED, "medium"))
        # Of this call alone: who waits for the router's lock lets other threads run.
        cdef vector[uint64_t] blocks
        tokens = field(event, is_row, _STORED, "token_ids")
        if tokens is not None and not hasattr(tokens, "__len__"):
            raise InvalidType(f"token_ids is {type(tokens).__name__}; allowed: a row of whole numbers, or None")
        if tokens is None or len(tokens) == 0:  # moved to another tier: known by its id alone
            blocks = self._known(node, ids)
            return index.stored(node, ConstNames(blocks.data(), blocks.size()), tier, NULL)
        cdef cnp.ndarray row = integers("token_ids", tokens, cnp.NPY_INT64)
        cdef uint32_t block_size = <uint32_t>whole("block_size", field(event, is_row, _STORED, "block_size"), 1,
                                                   1 << 16)
        cdef size_t n = len(ids), i
        if <size_t>cnp.PyArray_DIM(row, 0) != n * block_size:
            raise InvalidArgument(f"token_ids has {cnp.PyArray_DIM(row, 0)} tokens; allowed: {n * block_size}, "
                                  f"block_size for each of {n} block_hashes")
        lora = field(event, is_row, _STORED, "lora_name")
        if lora is None:
            lora = field(event, is_row, _STORED, "lora_id")
        parent = field(event, is_row, _STORED, "parent_block_hash")
        extra = self._apart(field(event, is_row, _STORED, "extra_keys"), lora, n)
        cache_salt = field(event, is_row, _STORED, "cache_salt")
        cdef uint64_t before = 0
        if parent is None:
            if extra and len(extra[0]) == 1 and isinstance(extra[0][0], str):
                cache_salt = extra[0][0]
                extra[0] = ()
            before = chain_start(block_size, prefix_salt(lora, cache_salt))
        elif not self.c_obj.get().find(node, id_of(parent), before):
            self.n_unknown += n
            return 0
        cdef uint64_t after = before
        cdef const uint64_t* stands_after = NULL
        if parent is not None:
            stands_after = &after
        blocks.reserve(n)
        for i in range(n):
            if extra and extra[i]:  # images: the tokens alone do not say what the block holds
                before = stir(before + digest(extra[i]))
            before = chain64(before, <const int64_t*>cnp.PyArray_DATA(row) + i * block_size, block_size)
            blocks.push_back(before)
            self.c_obj.get().put(node, id_of(ids[i]), before)
        return index.stored(node, ConstNames(blocks.data(), n), tier, stands_after)

    cdef list _apart(self, object extra_keys, object lora, size_t n):
        """Of each block what else its engine names it by, but for the adapter; empty where nothing is."""
        if not extra_keys:
            return []
        if not isinstance(extra_keys, (list, tuple)) or <size_t>len(extra_keys) != n:
            raise InvalidArgument(f"extra_keys is {extra_keys!r}; allowed: None, or a list with one for each of {n} blocks")
        for each in extra_keys:
            if each is not None and not isinstance(each, (list, tuple)):
                raise InvalidType(f"extra_keys has a {type(each).__name__}; allowed: a list or None for each block")
        return [tuple(key for key in each if key != lora) if each else () for each in extra_keys]

    cdef size_t _removed(self, RouterPrefix& index, NodeId node, object event, bint is_row) except? 0:
        cdef list ids = ids_of(event, is_row, _REMOVED)
        if not self._counts(node, field(event, is_row, _REMOVED, "group_idx"), None, False):
            return 0
        cdef KvTier tier = tier_of_medium(field(event, is_row, _REMOVED, "medium"))
        cdef vector[uint64_t] blocks = self._known(node, ids)
        return index.removed(node, ConstNames(blocks.data(), blocks.size()), tier)

    cdef vector[uint64_t] _known(self, NodeId node, list ids) except *:
        """The blocks of those ids that are known. A name outlives its block: other tiers may have it."""
        cdef vector[uint64_t] blocks
        cdef uint64_t block = 0
        for id in ids:
            if self.c_obj.get().find(node, id_of(id), block):
                blocks.push_back(block)
            else:
                self.n_unknown += 1
        return blocks
