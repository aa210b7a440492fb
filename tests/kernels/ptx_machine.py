"""Runs blocks of 128 threads of a kernel's PTX in numpy, thread by thread as a GPU would.

It knows the instructions that the Mosaic kernels compile to, and complains about what a GPU would silently do wrong:
addresses outside an array or not a multiple of the access, warp-wide instructions in a divergent warp, and two threads
that use a word of shared memory without a barrier between them, one of them to write. Rounding is exact but for `fma`
(rounded twice), products of matrices (summed in float64) and the approximate functions.

The fragments of mma.m16n8k16 are those of the PTX manual, section "Matrix Fragments for mma.m16n8k16".
"""

import dataclasses
import re

import numpy as np

THREADS = 128
LANES = 32
_WORD = {16: np.uint16, 32: np.uint32, 64: np.uint64}
_EVERY = np.arange(THREADS)
MOST_STEPS = 50  # of a block before another one runs


class GlobalMemory:
    """Arrays far apart from each other."""

    def __init__(self) -> None:
        self.arrays: list[tuple[int, np.ndarray]] = []

    def add(self, array: np.ndarray) -> int:
        """Copies an array here and returns its address."""
        base = (len(self.arrays) + 1) << 32
        self.arrays.append((base, np.ascontiguousarray(array).view(np.uint8).reshape(-1).copy()))
        return base

    def bytes_at(self, base: int) -> np.ndarray:
        """All of an array."""
        return next(data for start, data in self.arrays if start == base)

    def find(self, address: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray]:
        """The array that all these accesses of `size` bytes lie in, and where, byte by byte."""
        assert (address % size == 0).all(), "global: misaligned"
        base = int(address[0]) >> 32 << 32
        data, at = self.bytes_at(base), address - base
        assert (at >= 0).all() and (at + size <= len(data)).all(), "global: outside of the array"  # noqa: PT018
        return data, at[:, None] + np.arange(size)


class SharedMemory:
    """Bytes, and who used which word since the last barrier."""

    def __init__(self, size: int) -> None:
        self.data = np.full(size, 0xAB, np.uint8)  # whatever was there before
        self.races: list[str] = []
        self.barrier()

    def barrier(self) -> None:
        """What came before is visible to everybody."""
        self.writer: dict[int, int] = {}
        self.readers: dict[int, set[int]] = {}

    def at(self, address: np.ndarray, size: int, threads: np.ndarray, *, write: bool, what: str) -> np.ndarray:
        """Where these accesses of `size` bytes lie, byte by byte."""
        assert (address % size == 0).all(), f"shared: misaligned: {what}"
        assert (address >= 0).all() and (address + size <= len(self.data)).all(), f"shared: outside: {what}"  # noqa: PT018
        for first, thread in zip(address, threads):
            for word in range(int(first) // 4, (int(first) + size + 3) // 4):
                others = {self.writer.get(word, thread)} | (self.readers.get(word, set()) if write else set())
                if others - {int(thread)}:
                    self.races.append(f"{what}: thread {thread} and {sorted(others - {int(thread)})}, word {word}")
                if write:
                    self.writer[word] = int(thread)
                else:
                    self.readers.setdefault(word, set()).add(int(thread))
        return address[:, None] + np.arange(size)


@dataclasses.dataclass(frozen=True)
class Program:
    """Statements, and where labels point."""

    statements: list[str]
    labels: dict[str, int]


def parse(text: str) -> Program:
    """The statements of the only kernel in a PTX text."""
    body = text[text.index("{", text.index(".entry")) + 1 :]
    body = re.sub(r"//[^\n]*|\.loc[^\n]*", "", body)
    count = iter(range(10**6))

    def without_scope(match):
        inner, number = match.group(1), next(count)
        for name in re.findall(r"[\w]+", " ".join(re.findall(r"\.reg \.\w+ ([\w, ]+);", inner))):
            inner = re.sub(rf"(?<![\w%.]){name}(?!\w)", f"%scope{number}{name}", inner)
        return re.sub(r"\.reg [^;]*;", "", inner)

    body = re.sub(r"\{(\s*\.reg[^{}]*(?:\{[^{}]*\}[^{}]*)*)\}", without_scope, body)
    statements, labels = [], {}
    for statement in re.split(r"[;\n]", re.sub(r":\s*\n", ":;", body)):
        statement = statement.strip()
        if statement.endswith(":"):
            labels[statement[:-1]] = len(statements)
        elif statement and statement not in "{}" and not statement.startswith("."):
            statements.append(statement)
    return Program(statements, labels)


def run_together(blocks: list["Block"], random: np.random.Generator) -> list[str]:
    """Runs blocks to their ends side by side, some warps of one of them at a time; the races that were seen."""
    running = list(blocks)
    with np.errstate(all="ignore"):
        while running:
            block = running[random.integers(len(running))]
            for _ in range(random.integers(1, MOST_STEPS)):
                block.advance(random)
                if block.done.all():
                    running.remove(block)
                    break
    return [race for block in blocks for race in block.shared.races]


class Block:
    """A block of threads; of a warp's threads those furthest behind go first, so that branches meet where they can."""

    def __init__(
        self, program: Program, parameters: list[int], number: int | tuple[int, int], memory: GlobalMemory, shared: int
    ) -> None:
        self.program, self.parameters, self.memory = program, parameters, memory
        number = number if isinstance(number, tuple) else (number, 0)
        self.places = {f"%ctaid.{axis}": np.full(THREADS, k) for axis, k in zip("xy", number)}
        self.shared = SharedMemory(shared)
        self.registers: dict[str, np.ndarray] = {}
        self.place = np.zeros(THREADS, np.int64)
        self.done = np.zeros(THREADS, bool)
        self.waiting = np.zeros(THREADS, bool)
        self.votes = np.zeros(THREADS, bool)
        self.copies: list[tuple[int, int, np.ndarray]] = []

    def advance(self, random: np.random.Generator) -> None:
        """One statement of one or several warps, or the barrier at which all threads wait."""
        ready = ~self.done & ~self.waiting
        if not ready.any():
            return self._pass_barrier()
        chosen = np.repeat(random.random(THREADS // LANES) < 0.5, LANES) & ready
        return self._step(chosen if chosen.any() else ready)

    def _pass_barrier(self):
        assert not self.done.any() and len(set(self.place)) == 1, "threads wait at different barriers"  # noqa: PT018
        statement = self.program.statements[self.place[0] - 1]
        if statement.startswith("bar.red"):
            self.registers[statement.split()[1].strip(",")] = np.full(THREADS, self.votes.any())
        self.waiting[:] = False
        self.shared.barrier()

    def _step(self, ready):
        place = self.place[ready].min()
        mask = ready & (self.place == place)
        self.place[mask] += 1
        statement = self.program.statements[place]
        guard = re.match(r"@(!?)(%\w+)\s+(.*)", statement)
        if guard:
            mask = mask & (self.registers[guard[2]] != bool(guard[1]))
            statement = guard[3]
        if mask.any():
            name, rest = (*statement.split(None, 1), "")[:2]
            operands = [x.strip() for x in re.findall(r"\{[^}]*\}|\[[^\]]*\]|[^,\s][^,]*", rest)]
            kind = name.split(".")
            special = getattr(self, f"_{kind[0]}", None)
            special(kind, operands, mask) if special else self._arithmetic(kind, operands, mask)

    # Operands

    def value(self, operand: str, bits: int = 32) -> np.ndarray:
        """Of all threads, as unsigned words or truth values."""
        special = {"%tid.x": _EVERY, "%laneid": _EVERY % LANES, **self.places}
        if operand in special:
            return special[operand].astype(np.uint32)
        if operand.startswith("%"):
            return self.registers[operand]
        if operand == "__dynamic_shmem__0":
            return np.zeros(THREADS, np.uint64)
        constant = int(operand[2:], 16) if operand.startswith("0f") else int(operand, 0)
        return np.full(THREADS, constant % (1 << bits), _WORD[bits])

    def put(self, register: str, value: np.ndarray, mask: np.ndarray) -> None:
        """Sets a register in some threads."""
        before = self.registers.get(register)
        same = before is not None and before.dtype == value.dtype
        self.registers[register] = np.where(mask, value, before) if same else value.copy()

    def _numbers(self, operand, kind):
        bits = int(re.sub(r"\D", "", kind))
        words = self.value(operand, bits)
        if kind == "f32":
            return words.view(np.float32)
        wide = words.astype(np.uint64) & np.uint64((1 << bits) - 1)
        signed = wide.view(np.int64)
        return (
            np.where(signed >> (bits - 1) & 1, signed - (1 << bits), signed) if kind[0] == "s" and bits < 64 else signed
        )

    def _address(self, operand):
        base, offset = re.fullmatch(r"\[(%?\w+)(?:\+(-?\d+))?\]", operand.replace(" ", "")).groups()
        return self.value(base, 64).astype(np.int64) + int(offset or 0)

    # Control

    def _bra(self, kind, operands, mask):
        self.place[mask] = self.program.labels[operands[0]]

    def _ret(self, kind, operands, mask):
        self.done[mask] = True

    def _bar(self, kind, operands, mask):
        self.waiting[mask] = True
        if kind[1] == "red":
            self.votes[mask] = self.registers[operands[3]][mask]

    def _fence(self, kind, operands, mask):
        """Only for other kinds of memory than are used here."""

    def _elect(self, kind, operands, mask):
        self.put(operands[0].split("|")[1], _EVERY % LANES == 0, mask)

    def _setp(self, kind, operands, mask):
        a, b = (self._numbers(x, kind[-1]) for x in operands[1:])
        name = kind[1][:2]
        compare = {"lt": a < b, "gt": a > b, "ge": a >= b, "le": a <= b, "eq": a == b, "ne": a != b}[name]
        if kind[-1] == "f32":
            unordered = np.isnan(a) | np.isnan(b)
            compare = compare | unordered if kind[1].endswith("u") and len(kind[1]) == 3 else compare & ~unordered
        self.put(operands[0], compare, mask)

    def _selp(self, kind, operands, mask):
        a, b = (self.value(x, int(kind[1][1:])) for x in operands[1:3])
        self.put(operands[0], np.where(self.registers[operands[3]], a, b), mask)

    # Memory

    def _ld(self, kind, operands, mask):
        if kind[1].startswith("param"):  # or "param::entry", as newer compilers say
            number = int(re.search(r"param_(\d+)", operands[1])[1])
            return self.put(operands[0], np.full(THREADS, self.parameters[number], np.uint64), mask)
        names = [x.strip() for x in operands[0].strip("{}").split(",")]
        size = int(kind[-1][1:]) // 8
        address = self._address(operands[1])[mask]
        if kind[1] == "shared":
            at = self.shared.at(address, size * len(names), _EVERY[mask], write=False, what=".".join(kind))
            read = self.shared.data[at]
        else:
            data, at = self.memory.find(address, size * len(names))
            read = data[at]
        for name, column in zip(names, np.moveaxis(read.copy().view(_WORD[size * 8]), 1, 0)):
            value = np.zeros(THREADS, _WORD[size * 8])
            value[mask] = column
            self.put(name, value, mask)
        return None

    def _st(self, kind, operands, mask):
        names = [x.strip() for x in operands[1].strip("{}").split(",")]
        size = int(kind[-1][1:]) // 8
        words = np.stack([self.value(x)[mask].astype(_WORD[size * 8]) for x in names], 1)
        address = self._address(operands[0])[mask]
        if kind[1] == "shared":
            at = self.shared.at(address, size * len(names), _EVERY[mask], write=True, what=".".join(kind))
            self.shared.data[at] = words.view(np.uint8)
        else:
            data, at = self.memory.find(address, size * len(names))
            data[at] = words.view(np.uint8)

    def _cp(self, kind, operands, mask):
        """Asynchronous: the bytes are garbage until the thread has waited, and its own until a barrier."""
        if kind[2] == "wait_all":
            for thread, first, data in [c for c in self.copies if mask[c[0]]]:
                place, who = np.array([first]), np.array([thread])
                self.shared.data[self.shared.at(place, len(data), who, write=True, what="cp.async")] = data
            self.copies = [c for c in self.copies if not mask[c[0]]]
            return
        size = int(operands[2])
        data, source = self.memory.find(self._address(operands[1])[mask], size)
        target = self._address(operands[0])[mask]
        self.shared.data[self.shared.at(target, size, _EVERY[mask], write=True, what="cp.async")] = 0xFF
        self.copies += [(int(t), int(a), data[s].copy()) for t, a, s in zip(_EVERY[mask], target, source)]

    # Warps

    def _whole_warps(self, mask, what):
        warps = mask.reshape(-1, LANES)
        assert (warps.all(1) == warps.any(1)).all(), f"{what} in a divergent warp"

    def _shfl(self, kind, operands, mask):
        self._whole_warps(mask, "shfl")
        wanted, bits = (self.value(x).astype(np.int64) for x in operands[2:4])
        own = bits >> 8 & 31  # the bits of a lane's number that stay
        lane = _EVERY % LANES & own | wanted & 31 & ~own
        self.put(operands[0].split("|")[0], self.value(operands[1])[_EVERY // LANES * LANES + lane], mask)

    def _mma(self, kind, operands, mask):
        self._whole_warps(mask, "mma")
        out, a, b, c = ([x.strip() for x in o.strip("{}").split(",")] for o in operands)
        group, lane = np.arange(LANES) // 4, np.arange(LANES) % 4
        results = np.zeros((4, THREADS), np.float32)
        for warp in np.flatnonzero(mask[::LANES]):
            of_warp = slice(warp * LANES, (warp + 1) * LANES)
            left, right, sums = np.zeros((16, 16)), np.zeros((16, 8)), np.zeros((16, 8))
            for register, (down, across) in zip(a, ((0, 0), (8, 0), (0, 8), (8, 8))):
                for half in (0, 1):
                    left[group + down, 2 * lane + across + half] = self._half(register, half)[of_warp]
            for register, down in zip(b, (0, 8)):
                for half in (0, 1):
                    right[2 * lane + down + half, group] = self._half(register, half)[of_warp]
            places = [(group + down, 2 * lane + across) for down in (0, 8) for across in (0, 1)]
            for register, place in zip(c, places):
                sums[place] = self.value(register).view(np.float32)[of_warp]
            sums = (sums + left @ right).astype(np.float32)
            for row, place in zip(results, places):
                row[of_warp] = sums[place]
        for register, row in zip(out, results):
            self.put(register, row.view(np.uint32), mask)

    def _half(self, register, half):
        words = self.value(register)
        return (words & np.uint32(0xFFFF0000) if half else words << np.uint32(16)).view(np.float32)

    # Numbers

    def _mov(self, kind, operands, mask):
        if operands[1].startswith("{"):
            low, high = (self.value(x.strip(), 16).astype(np.uint32) for x in operands[1].strip("{}").split(","))
            value = low | high << np.uint32(16)
        elif kind[1] == "pred":
            value = np.full(THREADS, operands[1] != "0")
        else:
            value = self.value(operands[1], int(kind[1][1:]))
        self.put(operands[0], value, mask)

    _cvta = lambda self, kind, operands, mask: self.put(operands[0], self.value(operands[1], 64), mask)  # noqa: E731

    def _cvt(self, kind, operands, mask):
        source = self._numbers(operands[1], kind[-1])
        if kind[-2] == "f32":
            value = source.astype(np.float32).view(np.uint32)
        else:
            value = source.astype(_WORD[int(kind[-2][1:])])
        self.put(operands[0], value, mask)

    def _not(self, kind, operands, mask):
        self.put(operands[0], ~self.registers[operands[1]], mask)

    def _logic(self, kind, operands, mask):
        bits = 1 if kind[1] == "pred" else int(kind[1][1:])
        a, b = (self.value(x, bits) for x in operands[1:])
        value = {"and": np.bitwise_and, "or": np.bitwise_or, "xor": np.bitwise_xor}[kind[0]](a, b.astype(a.dtype))
        self.put(operands[0], value, mask)

    _and = _or = _xor = _logic

    def _prmt(self, kind, operands, mask):
        a, b, choice = (self.value(x).astype(np.uint64) for x in operands[1:])
        both, value = a | b << np.uint64(32), np.zeros(THREADS, np.uint64)
        for k in range(4):
            byte = choice >> np.uint64(4 * k) & np.uint64(7)
            value |= (both >> byte * np.uint64(8) & np.uint64(255)) << np.uint64(8 * k)
        self.put(operands[0], value.astype(np.uint32), mask)

    def _arithmetic(self, kind, operands, mask):
        x = [self._numbers(operand, kind[-1]) for operand in operands[1:]]
        if kind[-1] == "f32":
            value = _FLOATS[kind[0]](*x).astype(np.float32).view(np.uint32)
        else:
            bits = int(kind[-1][1:]) * (2 if "wide" in kind else 1)
            value = (_INTEGERS[kind[0]](*x).astype(np.int64) >> (bits if "hi" in kind else 0)).view(np.uint64)
            value = (value if bits == 64 else value & np.uint64((1 << bits) - 1)).astype(_WORD[bits])
        self.put(operands[0], value, mask)


_FLOATS = {
    "fma": lambda a, b, c: a.astype(np.float64) * b + c,
    "add": np.add,
    "sub": np.subtract,
    "mul": np.multiply,
    "neg": np.negative,
    "min": np.fmin,
    "max": np.fmax,
    "abs": np.abs,
    "div": np.divide,
    "ex2": np.exp2,
    "rcp": lambda a: 1 / a,
}
_INTEGERS = {
    "add": np.add,
    "sub": np.subtract,
    "mul": np.multiply,
    "mad": lambda a, b, c: a * b + c,
    "shl": np.left_shift,
    "shr": np.right_shift,
    "min": np.minimum,
    "max": np.maximum,
    "div": lambda a, b: np.trunc(a / np.where(b == 0, 1, b)),
    "rem": lambda a, b: np.fmod(a, np.where(b == 0, 1, b)),
    "bfe": lambda a, first, count: a >> first & (1 << count) - 1,
}
