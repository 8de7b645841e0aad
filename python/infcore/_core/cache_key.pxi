# Of cache.pyx: keys as the core knows them.

cdef extern from * nogil:
    """
    #include <cstdint>
    #include <cstring>

    namespace {

    enum : std::uint32_t { other_key, int_key, str_key };

    struct CacheKey {
      std::uint64_t content;  // an int's value; else its hash, where it is put of what it says, the same in every process
      std::uint32_t hash;     // of Python's hash: equal keys have equal ones, whatever their types
      std::uint32_t kind;
    };

    // One multiplication to 128 bits: the middle of it spreads keys that count up evenly over its upper bits, by which
    // places go (the constant: 2^64 over the golden ratio); with its top every bit depends on all of the hash.
    inline std::uint32_t place_of(Py_hash_t hash) noexcept {
      __extension__ using Wide = unsigned __int128;
      const Wide product = Wide{static_cast<std::uint64_t>(hash)} * 0x9E3779B97F4A7C15u;
      return static_cast<std::uint32_t>(product >> 64) ^ static_cast<std::uint32_t>(product >> 32);
    }

    inline std::uint64_t stirred(std::uint64_t x) noexcept {  // splitmix64's finaliser
      x = (x ^ x >> 30) * 0xBF58476D1CE4E5B9u;
      x = (x ^ x >> 27) * 0x94D049BB133111EBu;
      return x ^ x >> 31;
    }

    // Python hashes text differently in every process; a ghost's place must not depend on that.
    inline std::uint64_t content_of(const void* data, std::size_t n) noexcept {
      const unsigned char* at = static_cast<const unsigned char*>(data);
      std::uint64_t h = n * 0x9E3779B97F4A7C15u, word;
      for (; n >= 8; n -= 8, at += 8) std::memcpy(&word, at, 8), h = stirred(h ^ word);
      word = 0;
      std::memcpy(&word, at, n);
      return stirred(h ^ word);
    }

    // Whether the int's value fits; false without an error set.
    inline bool value_of(PyObject* key, std::int64_t& value) noexcept {
    #if PY_VERSION_HEX >= 0x030C0000
      if (PyUnstable_Long_IsCompact(reinterpret_cast<PyLongObject*>(key))) {
        value = PyUnstable_Long_CompactValue(reinterpret_cast<PyLongObject*>(key));
        return true;
      }
    #else
      const Py_ssize_t n = Py_SIZE(key);
      const digit* const digits = reinterpret_cast<PyLongObject*>(key)->ob_digit;
      if (n >= -1 && n <= 1) {
        value = n * static_cast<std::int64_t>(digits[0]);
        return true;
      }
      if (n == 2 || n == -2) {
        const std::int64_t size = static_cast<std::int64_t>(digits[0]) | static_cast<std::int64_t>(digits[1]) << PyLong_SHIFT;
        value = n < 0 ? -size : size;
        return true;
      }
    #endif
      int overflow = 0;
      value = PyLong_AsLongLongAndOverflow(key, &overflow);
      return overflow == 0;
    }

    // False with an error set: it has no hash.
    inline bool read_key(PyObject* key, CacheKey& out) noexcept {
      Py_hash_t hash;
      if (PyLong_CheckExact(key)) {
        std::int64_t value;
        // Python takes the hash of an int modulo 2^61 - 1, and -2 for that of -1.
        if (value_of(key, value) && value > -(std::int64_t{1} << 60) && value < (std::int64_t{1} << 60)) {
          out = {static_cast<std::uint64_t>(value), 0, int_key};
          hash = value == -1 ? -2 : static_cast<Py_hash_t>(value);
          out.hash = place_of(hash);
          return true;
        }
      }
      const bool text = PyUnicode_CheckExact(key);
      hash = text ? reinterpret_cast<PyASCIIObject*>(key)->hash : -1;
      if (hash == -1) hash = PyObject_Hash(key);
      if (hash == -1) return false;
      out = {static_cast<std::uint64_t>(hash), place_of(hash), text ? str_key : other_key};
      return true;
    }

    // Before a put: what ghosts know it by.
    inline void read_content(PyObject* key, CacheKey& out) noexcept {
      if (out.kind == str_key) {
        out.content = content_of(PyUnicode_DATA(key),
                                 static_cast<std::size_t>(PyUnicode_GET_LENGTH(key)) * PyUnicode_KIND(key));
      } else if (out.kind == other_key) {
        out.content = PyBytes_CheckExact(key)
                          ? content_of(PyBytes_AS_STRING(key), static_cast<std::size_t>(PyBytes_GET_SIZE(key)))
                          : stirred(out.content);
      }
    }

    inline bool same_text(PyObject* a, PyObject* b) noexcept {
      const Py_ssize_t n = PyUnicode_GET_LENGTH(a);
      const auto kind = PyUnicode_KIND(a);
      return n == PyUnicode_GET_LENGTH(b) && kind == PyUnicode_KIND(b) &&
             std::memcmp(PyUnicode_DATA(a), PyUnicode_DATA(b), static_cast<std::size_t>(n) * kind) == 0;
    }

    inline bool is_among(PyObject* list, PyObject* sought) noexcept {
      for (Py_ssize_t i = 0; i < PyList_GET_SIZE(list); ++i)
        if (PyList_GET_ITEM(list, i) == sought) return true;
      return false;
    }

    inline PyObject* key_at(PyObject* pairs, infcore::cache::EntryId id) noexcept {
      return PyList_GET_ITEM(pairs, 2 * static_cast<Py_ssize_t>(id));
    }
    inline PyObject* value_at(PyObject* pairs, infcore::cache::EntryId id) noexcept {
      return PyList_GET_ITEM(pairs, 2 * static_cast<Py_ssize_t>(id) + 1);
    }

    // The key's entry, dead or alive, as far as its kind and bits tell. Where a key's own __eq__ must tell, `ask` is that
    // key; those in `compared` (a list or null) said no before.
    inline infcore::cache::EntryId find_entry(const infcore::cache::CacheShard& shard, PyObject* pairs, PyObject* key,
                                              const CacheKey& known, PyObject* compared, PyObject*& ask) noexcept {
      ask = nullptr;
      for (auto probe = shard.probe(known.hash);; probe = shard.next(probe, known.hash)) {
        const infcore::cache::EntryId id = probe.id;
        if (id == infcore::cache::no_entry) return id;
        const std::uint32_t kind = shard.kind(id);
        if (kind == int_key && known.kind == int_key) {
          if (shard.key(id) == known.content) return id;
          continue;
        }
        PyObject* const stored = key_at(pairs, id);
        if (stored == key) return id;
        if (kind == str_key && known.kind == str_key) {
          if (same_text(stored, key)) return id;
        } else if (kind == other_key || known.kind == other_key) {
          if (compared != nullptr && is_among(compared, stored)) continue;
          ask = stored;
          return id;
        }
      }
    }

    // That very object's entry. Others equal to it may stand before it.
    inline infcore::cache::EntryId entry_of(const infcore::cache::CacheShard& shard, PyObject* pairs, PyObject* stored,
                                            std::uint32_t hash) noexcept {
      auto probe = shard.probe(hash);
      while (probe.id != infcore::cache::no_entry && key_at(pairs, probe.id) != stored) probe = shard.next(probe, hash);
      return probe.id;
    }

    // Takes over `key` and `value`, hands over what was there.
    inline void exchange_pair(PyObject* pairs, infcore::cache::EntryId id, PyObject*& key, PyObject*& value) noexcept {
      PyObject *const key_before = key_at(pairs, id), *const value_before = value_at(pairs, id);
      PyList_SET_ITEM(pairs, 2 * static_cast<Py_ssize_t>(id), key);
      PyList_SET_ITEM(pairs, 2 * static_cast<Py_ssize_t>(id) + 1, value);
      key = key_before;
      value = value_before;
    }

    // An exact int from 0 on; false without an error set.
    inline bool count_of(PyObject* number, std::uint64_t& out) noexcept {
      std::int64_t value;
      if (!PyLong_CheckExact(number) || !value_of(number, value) || value < 0) return false;
      out = static_cast<std::uint64_t>(value);
      return true;
    }

    // get() of an int or a text: a reference to the value or to `missing`, or `unsure`, where somebody must look closer.
    inline PyObject* get_plain(infcore::cache::CacheShard& shard, PyObject* pairs, PyObject* key, std::int64_t now_ns,
                               PyObject* missing, PyObject* unsure) noexcept {
      CacheKey known;
      PyObject *ask = nullptr, *found = unsure;
      const bool plain = PyLong_CheckExact(key) || PyUnicode_CheckExact(key);
      if (plain && read_key(key, known)) {
        shard.lock.lock();
        const infcore::cache::EntryId id = find_entry(shard, pairs, key, known, nullptr, ask);
        if (id == infcore::cache::no_entry) {
          shard.miss();
          found = missing;
        } else if (ask == nullptr && shard.is_live(id, now_ns)) {
          shard.hit(id);
          found = value_at(pairs, id);
        }
        shard.lock.unlock();
      }
      Py_INCREF(found);
      return found;
    }

    }  // namespace
    """
    cdef struct CacheKey:
        uint64_t content
        uint32_t hash
        uint32_t kind
    cbool read_key(PyObject*, CacheKey&) noexcept
    void read_content(PyObject*, CacheKey&) noexcept
    EntryId find_entry(const CacheShard&, PyObject*, PyObject*, const CacheKey&, PyObject*, PyObject*&) noexcept
    EntryId entry_of(const CacheShard&, PyObject*, PyObject*, uint32_t) noexcept
    PyObject* key_at(PyObject*, EntryId) noexcept
    PyObject* value_at(PyObject*, EntryId) noexcept
    void exchange_pair(PyObject*, EntryId, PyObject*&, PyObject*&) noexcept
    object get_plain(CacheShard&, PyObject*, PyObject*, int64_t, PyObject*, PyObject*)
    cbool count_of(PyObject*, uint64_t&) noexcept


cdef inline int key_of(object key, CacheKey* out) except -1:
    if read_key(<PyObject*>key, out[0]):
        return 0
    return no_key(key)


cdef int no_key(object key) except -1:
    if not PyErr_ExceptionMatches(TypeError):
        return -1  # its own __hash__ raised something else
    PyErr_Clear()
    raise InvalidType(f"key is {type(key).__name__}, which has no hash; allowed: what a dict takes")


cdef inline list find(Shard shard, object key, const CacheKey* known, EntryId* id):
    """The key's entry, dead or alive; under the shard's lock, which is let go while a key's own __eq__ runs, and where
    that raises. Returns what is to be let go without the lock."""
    cdef PyObject* ask = NULL
    id[0] = find_entry(shard.c_obj.get()[0], <PyObject*>shard.pairs, <PyObject*>key, known[0], NULL, ask)
    return None if ask == NULL else find_by_asking(shard, key, known, ask, id)


cdef list find_by_asking(Shard shard, object key, const CacheKey* known, PyObject* ask, EntryId* id):
    """Each key is asked once, whatever its __eq__ does to the cache."""
    cdef CacheShard* entries = shard.c_obj.get()
    cdef list compared
    cdef cbool same
    other = <object>ask
    entries.lock.unlock()
    compared = []
    while True:
        compared.append(other)
        same = PyObject_RichCompareBool(other, key, Py_EQ)
        entries.lock.lock()
        if same:  # it may have gone meanwhile, and another equal one have come
            id[0] = entry_of(entries[0], <PyObject*>shard.pairs, <PyObject*>other, known.hash)
            if id[0] != no_entry:
                return compared
        id[0] = find_entry(entries[0], <PyObject*>shard.pairs, <PyObject*>key, known[0], <PyObject*>compared, ask)
        if ask == NULL:
            return compared
        other = <object>ask  # the one before is among those compared: it does not end here, under the lock
        entries.lock.unlock()
