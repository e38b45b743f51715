"""Is a pickle's program one that data needs? Answered from its opcodes, before the interpreter in `pickle` runs them.

That interpreter is C code that trusts its input where the input costs it memory or stack: ``LONG_BINPUT 2**31`` fills
a table of 32 GB, and a deep or doubled tuple that becomes a key is hashed without a limit. So the opcodes are walked
here with a stack that holds one byte per value, whether it may be a key or not, and what no pickler writes for plain
data is refused: tuples as keys, integers of hundreds of digits, memo indices beyond the file's length, and the opcodes
for persistent ids, extensions, old-style instances and recursive tuples. What the interpreter itself refuses (an empty
stack, a memo entry that is not set) is left to it.
"""

from __future__ import annotations

import re

_KEY, _NO_KEY = 1, 2  # may be a key of a dictionary or a member of a set, or not


def _codes(sizes: dict[bytes, int]) -> dict[int, int]:
    return {ord(code): size for code, size in sizes.items()}


# Opcodes that push a value: how many bytes of argument they have.
_FIXED = _codes({b"N": 0, b"\x88": 0, b"\x89": 0, b"M": 2, b"J": 4})
# The same, with an argument that begins with its length: how many bytes of length.
_COUNTED = _codes({b"U": 1, b"T": 4, b"X": 4, b"\x8c": 1, b"\x8d": 8, b"C": 1, b"B": 4, b"\x8e": 8, b"\x96": 8})
# The same, with lines of text as argument: how many.
_LINES = _codes({b"F": 1, b"S": 1, b"V": 1, b"c": 2})
# Opcodes that take values from the stack and push one that may be a key: how many they take.
_CALLS = _codes({b"R": 2, b"b": 2, b"\x93": 2, b"\x81": 2, b"\x92": 3})
_TUPLES = _codes({b")": 0, b"\x85": 1, b"\x86": 2, b"\x87": 3})
_PROTOCOL, _FRAME, _FRAME_LENGTH = 0x80, 0x95, 8

_FLOAT, _SMALL_INTEGER, _LONG, _TEXT_INTEGERS = ord("G"), ord("K"), 0x8A, b"IL"
_MARK, _MEMOIZE, _STOP = ord("("), 0x94, ord(".")
_EMPTY_CONTAINERS = b"]}\x8f"
_GET, _LONG_GET, _TEXT_GET = b"hjg"
_PUT, _LONG_PUT, _TEXT_PUT = b"qrp"
_APPENDS, _SETITEMS = ord("e"), ord("u")

# Numbers come in runs: one step for each run instead of one for each number.
_RUNS = {
    _FLOAT: (re.compile(rb"(?:G.{8})+", re.DOTALL), 9),
    _SMALL_INTEGER: (re.compile(rb"(?:K.)+", re.DOTALL), 2),
}

_LONGEST_INTEGER = 127  # bytes, as much as a float can hold
_MOST_DIGITS = 305  # the same as text
_LONGEST_KEY = 8  # bytes; of larger integers as many as one likes have the same hash


class NotPlainData(ValueError):
    """A pickle that no pickler writes for plain data."""


def scanned(content: bytes) -> bytes:
    """A pickle whose opcodes, up to its STOP, are those of plain data.

    Args:
        content: the whole file.

    Returns:
        The pickle without its frames. They mean nothing, but the interpreter loses its place at the end of one that is
        shorter than it says, and would read other opcodes than were checked here.

    Raises:
        NotPlainData: truncated, or not what a pickler writes for plain data.
    """
    scan = _Scan(content)
    try:
        end = scan.run()
    except IndexError as error:
        raise NotPlainData("it ends in the middle, or refers to what it does not have") from error
    starts = [0, *(frame + 1 + _FRAME_LENGTH for frame in scan.frames)]
    return b"".join(content[start:stop] for start, stop in zip(starts, [*scan.frames, end], strict=True))


class _Scan:
    """The unpickler's stack, marks and memo, with one byte instead of each value."""

    def __init__(self, content: bytes) -> None:
        self.content = content
        self.stack = bytearray()
        self.marks: list[int] = []
        self.memo = bytearray(len(content))  # 0: not set
        self.memo_size = 0
        self.frames: list[int] = []

    def run(self) -> int:
        """Walk the opcodes; returns where they end."""
        content, stack, marks, memo = self.content, self.stack, self.marks, self.memo
        at = 0
        while (code := content[at]) != _STOP:
            at += 1
            if code == _GET:
                stack.append(memo[content[at]])
                at += 1
            elif code == _PUT:
                self._put(content[at])
                at += 1
            elif code == _MEMOIZE:
                self._put(self.memo_size)
            elif code == _MARK:
                marks.append(len(stack))
            elif code in _RUNS and (run := _RUNS[code][0].match(content, at - 1)):
                stack += b"\1" * ((run.end() - at + 1) // _RUNS[code][1])
                at = run.end()
            elif code in _EMPTY_CONTAINERS:
                stack.append(_NO_KEY)
            elif code == _APPENDS:
                del stack[marks.pop() :]
            elif code == _SETITEMS:
                start = marks.pop()
                self._check_keys(stack[start::2])
                del stack[start:]
            else:
                at = self._step(code, at)
        return at + 1

    def _put(self, index: int) -> None:
        self.memo_size += self.memo[index] == 0
        self.memo[index] = self.stack[-1]

    def _step(self, code: int, at: int) -> int:
        """What a data file has less of; returns where the next opcode is."""
        if code in _FIXED:
            self.stack.append(_KEY)
            return at + _FIXED[code]
        if code in (_LONG_GET, _LONG_PUT):
            index = int.from_bytes(self.content[at : at + 4], "little")
            if code == _LONG_PUT:
                self._put(index)
            else:
                self.stack.append(self.memo[index])
            return at + 4
        if code in _COUNTED or code == _LONG:
            return self._counted(code, at)
        if code in _LINES or code in _TEXT_INTEGERS or code in (_TEXT_GET, _TEXT_PUT):
            return self._text(code, at)
        if code in (_FRAME, _PROTOCOL):
            self.frames += [at - 1] * (code == _FRAME)
            return at + (_FRAME_LENGTH if code == _FRAME else 1)
        if code in _CALLS:
            self._fold(_CALLS[code], _KEY)
        else:
            self._container(code)
        return at

    def _counted(self, code: int, at: int) -> int:
        start = at + (1 if code == _LONG else _COUNTED[code])
        size = int.from_bytes(self.content[at:start], "little")
        if code == _LONG and size > _LONGEST_INTEGER:
            raise NotPlainData(f"an integer has {size} bytes")
        self.stack.append(_NO_KEY if code == _LONG and size > _LONGEST_KEY else _KEY)
        return start + size

    def _text(self, code: int, at: int) -> int:
        """Opcodes of protocol 0, with lines as arguments."""
        for _ in range(_LINES.get(code, 1)):
            start, at = at, self.content.find(b"\n", at) + 1
            if not at:
                raise IndexError
        line = self.content[start : at - 1]
        if code in (_TEXT_GET, _TEXT_PUT):
            if not re.fullmatch(rb"[0-9]{1,10}", line):
                raise NotPlainData("a memo index is not a number")
            if code == _TEXT_PUT:
                self._put(int(line))
            else:
                self.stack.append(self.memo[int(line)])
        else:
            if code in _TEXT_INTEGERS and len(line) > _MOST_DIGITS:
                raise NotPlainData(f"an integer has {len(line)} digits")
            self.stack.append(_NO_KEY if code in _TEXT_INTEGERS and len(line) > 2 * _LONGEST_KEY else _KEY)
        return at

    def _container(self, code: int) -> None:
        """Tuples, lists, dictionaries and sets, made or filled."""
        if code in _TUPLES:
            self._fold(_TUPLES[code], _NO_KEY)
        elif code == ord("a"):
            del self.stack[-1:]
        elif code == ord("s"):
            self._check_keys(self.stack[-2:-1])
            del self.stack[-2:]
        elif code in b"tld\x90\x91":
            start = self.marks.pop()
            taken = self.stack[start:]
            del self.stack[start:]
            if code in b"d\x90\x91":
                self._check_keys(taken[::2] if code == ord("d") else taken)
            if code != 0x90:
                self.stack.append(_KEY if code == 0x91 else _NO_KEY)
        else:
            raise NotPlainData(f"opcode {bytes([code])!r} is not used for plain data")

    def _fold(self, count: int, kind: int) -> None:
        if count:
            del self.stack[-count:]
        self.stack.append(kind)

    @staticmethod
    def _check_keys(keys: bytearray) -> None:
        if _NO_KEY in keys:
            raise NotPlainData("a key is neither text nor a number")
