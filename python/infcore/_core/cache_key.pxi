# Of cache.pyx: keys as the core knows them.

cdef extern from * nogil:
    """
    #include <cstdint>
    #include <cstring>

    namespace {

    enum : std::uint32_t { other_key, int_key, str_key };

    struct CacheKey {
      std::uint64_t content;  // an int's value; else, where it is put, of what it says, the same in every process
      std::uint32_t hash;     // of Python's hash: equal keys have equal ones, whatever their types
      std::uint32_t kind;
    };

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
          out.hash = static_cast<std::uint32_t>(stirred(static_cast<std::uint64_t>(hash)));
          return true;
        }
      }
      const bool text = PyUnicode_CheckExact(key);
      hash = text ? reinterpret_cast<PyASCIIObject*>(key)->hash : -1;
      if (hash == -1) hash = PyObject_Hash(key);
      if (hash == -1) return false;
      const std::uint64_t mixed = stirred(static_cast<std::uint64_t>(hash));
      out = {mixed, static_cast<std::uint32_t>(mixed), text ? str_key : other_key};
      return true;
    }

    // Before a put: what ghosts know it by.
    inline void read_content(PyObject* key, CacheKey& out) noexcept {
      if (out.kind == str_key) {
        out.content = content_of(PyUnicode_DATA(key),
                                 static_cast<std::size_t>(PyUnicode_GET_LENGTH(key)) * PyUnicode_KIND(key));
      } else if (out.kind == other_key && PyBytes_CheckExact(key)) {
        out.content = content_of(PyBytes_AS_STRING(key), static_cast<std::size_t>(PyBytes_GET_SIZE(key)));
      }
    }

    inline bool same_text(PyObject* a, PyObject* b) noexcept {
      const Py_ssize_t n = PyUnicode_GET_LENGTH(a);
      const auto kind = PyUnicode_KIND(a);
      return n == PyUnicode_GET_LENGTH(b) && kind == PyUnicode_KIND(b) &&
             std::memcmp(PyUnicode_DATA(a), PyUnicode_DATA(b), static_cast<std::size_t>(n) * kind) == 0;
    }

    }  // namespace
    """
    cdef struct CacheKey:
        uint64_t content
        uint32_t hash
        uint32_t kind
    const uint32_t other_key
    const uint32_t int_key
    const uint32_t str_key
    cbool read_key(PyObject*, CacheKey&) noexcept
    void read_content(PyObject*, CacheKey&) noexcept
    cbool same_text(PyObject*, PyObject*) noexcept


cdef inline int key_of(object key, CacheKey* out) except -1:
    if read_key(<PyObject*>key, out[0]):
        return 0
    PyErr_Clear()
    raise InvalidType(f"key is {type(key).__name__}, which has no hash; allowed: what a dict takes")


cdef inline EntryId find(Shard shard, object key, const CacheKey* known) except? 0xFFFFFFFE:
    """The key's entry, dead or alive; under the shard's lock, which is let go while a key's own __eq__ runs, and where
    that raises."""
    cdef CacheShard* entries = shard.c_obj.get()
    cdef Probe probe = entries.probe(known.hash)
    cdef PyObject* stored
    cdef uint32_t kind
    cdef uint64_t n_changes
    while probe.id != no_entry:
        stored = PyList_GET_ITEM(shard.keys, probe.id)
        if stored == <PyObject*>key:
            return probe.id
        kind = entries.kind(probe.id)
        if kind == int_key and known.kind == int_key:
            if entries.key(probe.id) == known.content:
                return probe.id
        elif kind == str_key and known.kind == str_key:
            if same_text(stored, <PyObject*>key):
                return probe.id
        elif kind == other_key or known.kind == other_key:
            n_changes = entries.n_changes()
            other = <object>stored
            entries.lock.unlock()
            same = PyObject_RichCompareBool(other, key, Py_EQ)
            entries.lock.lock()
            if entries.n_changes() != n_changes:  # what is there now may be something else
                probe = entries.probe(known.hash)
                continue
            if same:
                return probe.id
        probe = entries.next(probe, known.hash)
    return no_entry
