"""What Redis does in one step, as commands: scripts that 6.0 knows, and the plain commands beside them."""

from collections.abc import Sequence

from infcore.cache.far_value import HEAD_BYTES

Command = Sequence[bytes]

# Refused (-1) where a tag was invalidated since, (0) where a newer version is there, or anything of what must not be
# replaced, unless that begins as one known to be dead. Bytes 8 to 15 are the version (far_value.py): compared one by
# one, since Lua's numbers end at 2^53 and its order of strings is the locale's.
_PUT = b"""
for i = 2, #KEYS do
  if redis.call('GET', KEYS[i]) ~= ARGV[i + 3] then return -1 end
end
local old, new = redis.call('GETRANGE', KEYS[1], 0, 15), ARGV[1]
local dead = ARGV[3] ~= '' and redis.call('GETRANGE', KEYS[1], 0, #ARGV[3] - 1) == ARGV[3]
if ARGV[4] == '1' and old ~= '' and not dead then return 0 end
if not dead and #old == 16 and old:sub(1, 4) == new:sub(1, 4) then
  for i = 9, 16 do
    local a, b = old:byte(i), new:byte(i)
    if a > b then return 0 end
    if a < b then break end
  end
end
if ARGV[2] == '0' then redis.call('SET', KEYS[1], new) else redis.call('SET', KEYS[1], new, 'PX', ARGV[2]) end
return 1
"""
# The marks of tags; who has none, or something else, gets the one that was brought.
_OPEN = b"""
local marks = {}
for i = 1, #KEYS do
  marks[i] = redis.call('GET', KEYS[i])
  if not marks[i] or #marks[i] ~= #ARGV[1] then
    marks[i] = ARGV[1]
    redis.call('SET', KEYS[i], ARGV[1])
  end
end
return marks
"""
# Something under a name that nothing lies under. The DEL comes first: a script that has written may write on, also
# where memory is full, and whoever deletes may do so because of that.
_TOUCH = b"""
redis.call('DEL', KEYS[1])
redis.call('SET', KEYS[1], '', 'PX', 1000)
return 1
"""
# Gone, if it is still the one that was seen: its header is the argument, nothing of an empty one.
_DROP = b"""
if redis.call('GETRANGE', KEYS[1], 0, math.max(0, #ARGV[1] - 1)) == ARGV[1] then return redis.call('DEL', KEYS[1]) end
return 0
"""


def put(
    name: bytes,
    packed: bytes,
    ttl_ms: int,
    tags: Sequence[tuple[bytes, bytes]],
    dead: bytes = b"",
    *,
    is_new: bool = False,
) -> Command:
    """For ours(). Replies 1: written, 0: a newer one is there (is_new: any one that is not dead), or -1: a tag is
    outdated
    """
    names, marks = [name, *(tag for tag, _ in tags)], [mark for _, mark in tags]
    return (b"EVAL", _PUT, b"%d" % len(names), *names, packed, b"%d" % ttl_ms, dead, b"%d" % is_new, *marks)


def open_tags(names: Sequence[bytes], mark: bytes) -> Command:
    """For ours(). Replies the list of marks. Of tags that bore nothing just now."""
    return (b"EVAL", _OPEN, b"%d" % len(names), *names, mark)


def ours(names: Sequence[bytes], script: Command, *, by_first: bool = False) -> list[Command]:
    """What the script writes under the names counts as written by the connection. The last reply is a list that begins
    with the script's.

    Redis tells the writer of what a script wrote even where it asked not to be told (NOLOOP): it remembers who touched
    a key last in a turn of its loop, and for it that is not the connection. So the connection itself touches the key
    behind the script, in the same turn, by appending nothing. Were it told all the same, it would only forget. Others
    are told, too, where nothing was written, and ask once more

    by_first    for a Redis that remembers who touched a key first: it is touched before the script, too, and the list
                has two more for each name, one before the script's and, last, what began() says
    """
    touch = [(b"APPEND", name, b"") for name in names]
    if by_first:
        return [(b"MULTI",), *touch, script, *touch, *began(names), (b"EXEC",)]
    return [(b"MULTI",), script, *touch, (b"EXEC",)]


def began(names: Sequence[bytes]) -> list[Command]:
    """Replies what tells one value or mark under each name from every other: its header, or all of it."""
    return [(b"GETRANGE", name, b"0", b"%d" % (HEAD_BYTES - 1)) for name in names]


def delete(name: bytes, gone: bytes) -> list[Command]:
    """Replies 1, the number of those that were under the name, and 1. `gone` is what the others hear of.

    Redis tells nobody of a DEL that finds nothing, and of one that it does in a turn with a later put of who computed
    a value meanwhile, it does not tell that one (see ours()). Both must hear of it; nobody else ever writes that name
    """
    touch, untouch = touched(gone)
    return [touch, (b"DEL", name), untouch]


def touched(name: bytes) -> list[Command]:
    """Replies 1 and 1. The others hear of a name that nothing lies under.

    The connection itself deletes what the script put there, as it touches in ours() what that wrote; not by MULTI,
    since nothing is queued where memory is full. For the same reason it cannot be first, so that a Redis before 6.2
    tells it, too
    """
    return [(b"EVAL", _TOUCH, b"1", name), (b"DEL", name)]


def drop(name: bytes, head: bytes) -> list[Command]:
    """Without a head: what the APPEND of a put() made where its script wrote nothing."""
    return [(b"EVAL", _DROP, b"1", name, head)]


def packed(command: Command) -> bytes:
    """A command as it goes over the wire."""
    parts = [b"*%d\r\n" % len(command)]
    for word in command:
        parts += (b"$%d\r\n" % len(word), word, b"\r\n")
    return b"".join(parts)
