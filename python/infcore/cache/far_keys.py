"""Names in Redis: of values by their keys, and of tags. What is followed has one beginning, which no other's is of."""

import re
from collections.abc import Hashable

from infcore.errors import InvalidArgument, InvalidType

_ALLOWED = re.compile(r"[A-Za-z0-9_.-]{1,64}")


class Names:
    """The names of a namespace: "namespace:k:" and a key, "namespace:t:" and a tag.

    Under "namespace:d:" and a key, and "namespace:all", nothing lies: they are touched where the key or everything is
    deleted, and who computes a value that is not in Redis yet hears of that
    """

    def __init__(self, namespace: str):
        if not isinstance(namespace, str):
            raise InvalidType(f"namespace is {type(namespace).__name__}; allowed: a str")
        if not _ALLOWED.fullmatch(namespace):  # no colon: none begins as another does, which Redis would refuse
            raise InvalidArgument(f"namespace is {namespace!r}; allowed: 1 to 64 of A-Z a-z 0-9 _ . -")
        self.prefix = namespace.encode() + b":"
        self._key, self._deleted, self._tag = (self.prefix + kind for kind in (b"k:", b"d:", b"t:"))
        self.all = self.prefix + b"all"

    def of_key(self, key: Hashable) -> bytes:
        """Raises InvalidType: what is equal must have one name, in every process."""
        if type(key) is str:
            return self._key + b"s:" + key.encode("utf-8", "surrogatepass")
        if type(key) is int:
            try:
                return self._key + b"i:%d" % key
            except ValueError:  # of so many digits, Python does not say how it is written
                bits = key.bit_length()
                raise InvalidArgument(f"key is an int of {bits} bits; allowed: the digits that str() writes") from None
        if type(key) is bytes:
            return self._key + b"b:" + key
        raise InvalidType(f"key is {type(key).__name__}; allowed: str, int or bytes")

    def of_deleted(self, name: bytes) -> bytes:
        """Of a key's value that is deleted: beside its own name."""
        return self._deleted + name[len(self._key) :]

    def is_deleted(self, name: bytes) -> bool:
        """Whether of_deleted() gave it."""
        return name.startswith(self._deleted)

    def key_of(self, name: bytes) -> str | int | bytes | None:
        """The key behind a name of either kind; None where it names none of ours."""
        kind, rest = name[len(self._key) :][:2], name[len(self._key) + 2 :]
        if not name.startswith((self._key, self._deleted)):
            return None
        try:
            if kind == b"s:":
                return rest.decode("utf-8", "surrogatepass")
            return int(rest) if kind == b"i:" else rest if kind == b"b:" else None
        except ValueError:
            return None

    def of_tag(self, tag: str) -> bytes:
        """Of a tag that is known to be a str."""
        return self._tag + tag.encode("utf-8", "surrogatepass")

    def tag_of(self, name: bytes) -> str | None:
        """The tag behind a name; None where it names none of ours."""
        if not name.startswith(self._tag):
            return None
        try:
            return name[len(self._tag) :].decode("utf-8", "surrogatepass")
        except ValueError:
            return None
