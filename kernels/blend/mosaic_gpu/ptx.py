"""Single PTX instructions inside a kernel, on scalars that may differ from thread to thread.

Pallas takes a block of threads for one that computes on arrays, and has no word for what a warp or a lane does. Values
here are fragmented arrays of shape (): Pallas sees a scalar, the hardware one register a thread.
"""

import inspect
from collections.abc import Callable, Sequence
from typing import Annotated, Any

import jax.numpy as jnp
import numpy as np
from jax._src.lib.mlir.dialects import llvm  # the one dialect that jax.extend lacks
from jax.experimental.mosaic.gpu import fragmented_array, utils
from jax.experimental.pallas import mosaic_gpu as plgpu
from jax.extend.mlir import ir
from jax.extend.mlir.dialects import arith, scf
from jax.extend.mlir.dialects import vector as mlir_vector

from jsplat.kernels.blend.mosaic_gpu.layout import PIXELS

Scalar = fragmented_array.FragmentedArray

PER_THREAD = plgpu.Layout.WG_SPLAT(())
VECTOR = plgpu.Layout.WG_STRIDED((PIXELS,), vec_size=1)

# What a function for `inline` takes and returns.
Ref = Annotated[Any, "an array in shared or global memory"]
PerThread = Annotated[Scalar, "a number of each thread, for Pallas a scalar"]
Vector = Annotated[Scalar, "one entry a thread, for Pallas an array"]
Flag = Annotated[Scalar, "a truth value of each thread, for Pallas a scalar"]
_ARGUMENTS = {Ref: plgpu.RefType(), PerThread: PER_THREAD, Vector: VECTOR}
_RESULTS = {
    None: None,
    Flag: plgpu.ShapeDtypeStruct((), jnp.bool_, layout=PER_THREAD),
    Vector: plgpu.ShapeDtypeStruct((PIXELS,), jnp.float32, layout=VECTOR),
}

# Registers, by LLVM's letters: `4 * F32` are four of them.
I32, F32, PREDICATE = "r", "f", "b"
_LETTERS = {"i32": I32, "f32": F32, "i64": "l", "i1": PREDICATE}


def scalar(value: Any) -> Scalar:
    """An MLIR value as a scalar of this thread; integers are signed."""
    signed = True if isinstance(value.type, ir.IntegerType) else None
    return Scalar.splat(value, (), is_signed=signed)


def value(x: Scalar) -> Any:
    """The MLIR value of a scalar."""
    return x.registers.item()


def integer(number: int) -> Scalar:
    """A constant."""
    return scalar(utils.c(number, _integer(32)))


def number(constant: float) -> Scalar:
    """A constant."""
    return scalar(utils.c(constant, ir.F32Type.get()))


def thread() -> Scalar:
    """Number of this thread in its block."""
    return scalar(utils.thread_idx())


def lane() -> Scalar:
    """Number of this thread in its warp, read anew: what follows from it takes no registers between two reads."""
    return asm("mov.u32 $0, %laneid;", out=I32, fixed=True)


def warp() -> Scalar:
    """Number of this thread's warp; the compiler knows that it is the same for all 32."""
    return scalar(utils.warp_idx())


def asm(text: str, *args: Scalar, out: str = "", memory: bool = False, fixed: bool = False) -> Any:
    """One PTX text; `$0`, `$1` ... are the outputs, then the arguments.

    Args:
        out: a register for each output: `I32`, `F32`, `PREDICATE`, or several of them.
        memory: it touches memory, so that no other access may pass it.
        fixed: it involves other threads, so that it may neither move nor vanish.

    Returns:
        None, the output, or a list of them.
    """
    types = {I32: _integer(32), F32: ir.F32Type.get(), PREDICATE: _integer(1)}
    results = [types[letter] for letter in out]
    constraints = [f"={letter}" for letter in out] + [_LETTERS[str(x.mlir_dtype)] for x in args]
    constraints += ["~{memory}"] * memory
    if len(results) > 1:
        kind = llvm.StructType.get_literal(results)
    else:
        kind = results[0] if results else ir.Type.parse("!llvm.void")
    made: Any = llvm.inline_asm(
        kind, [value(x) for x in args], text, ",".join(constraints), has_side_effects=memory or fixed
    )
    if len(results) > 1:
        return [scalar(llvm.extractvalue(t, made, [k])) for k, t in enumerate(results)]
    return scalar(made) if results else None


def _integer(bits):
    return ir.IntegerType.get_signless(bits)


def shared_address(ref: Any) -> Scalar:
    """Where an array in shared memory begins, in bytes."""
    return scalar(llvm.ptrtoint(_integer(32), utils.memref_ptr(ref)))


def global_address(ref: Any) -> Scalar:
    """Where an array in global memory begins, in bytes."""
    return scalar(llvm.ptrtoint(_integer(64), utils.memref_ptr(ref)))


def offset(base: Scalar, index: Scalar, size: int) -> Scalar:
    """Address of an element of `size` bytes behind a global one; lists may be longer than 4 GiB."""
    wide = _integer(64)
    return base + scalar(arith.extsi(wide, value(index))) * scalar(utils.c(size, wide))


def load_shared(address: Scalar, kinds: str, at: int = 0) -> Any:
    """1, 2 or 4 words from shared memory, at a multiple of their bytes; `kinds` are registers."""
    return asm(_load("ld.shared", len(kinds), at), address, out=kinds, memory=True)


def load_constant(address: Scalar, kinds: str, at: int = 0) -> Any:
    """1, 2 or 4 words from global memory that nobody writes while the kernel runs, at a multiple of their bytes."""
    return asm(_load("ld.global.nc", len(kinds), at), address, out=kinds)


def store_shared(address: Scalar, values: Sequence[Scalar], at: int = 0) -> None:
    """1, 2 or 4 words to shared memory, at a multiple of their bytes."""
    asm(_store("st.shared", len(values), at), address, *values, memory=True)


def store_global(address: Scalar, values: Sequence[Scalar], at: int = 0) -> None:
    """1, 2 or 4 words to global memory, at a multiple of their bytes."""
    asm(_store("st.global", len(values), at), address, *values, memory=True)


def _load(name, count, at):
    return f"{name}{_kind(count)} {_words(0, count)}, [${count}+{at}];"


def _store(name, count, at):
    return f"{name}{_kind(count)} [$0+{at}], {_words(1, count)};"


def _kind(count):
    return (f".v{count}" if count > 1 else "") + ".b32"


def _words(first, count):
    words = ", ".join(f"${first + k}" for k in range(count))
    return f"{{{words}}}" if count > 1 else words


def load_half(address: Scalar, at: int = 0) -> Scalar:
    """A bfloat16 from shared memory, as f32."""
    text = f"{{ .reg .b16 z, h; mov.b16 z, 0; ld.shared.b16 h, [$1+{at}]; mov.b32 $0, {{z, h}}; }}"
    return asm(text, address, out=F32, memory=True)


def load_constant_half(address: Scalar) -> Scalar:
    """An unsigned integer of 16 bits from global memory that nobody writes while the kernel runs."""
    return asm("{ .reg .b16 h; ld.global.nc.u16 h, [$1]; cvt.u32.u16 $0, h; }", address, out=I32)


def store_half(address: Scalar, number: Scalar) -> None:
    """The low 16 bits of an integer to global memory."""
    asm("{ .reg .b16 h; cvt.u16.u32 h, $1; st.global.b16 [$0], h; }", address, number, memory=True)


def copy_async(shared: Scalar, source: Scalar, at: int = 0) -> None:
    """Starts to copy 16 bytes from global memory, `at` bytes behind the source."""
    asm(f"cp.async.cg.shared.global [$0], [$1+{at}], 16;", shared, source, memory=True)


def barrier() -> None:
    """Waits for all threads of the block, and makes their shared memory visible."""
    asm("bar.sync 0;", memory=True)


def minimum(a: Scalar, b: Scalar) -> Scalar:
    """The smaller of two signed integers."""
    return scalar(arith.minsi(value(a), value(b)))


def maximum(a: Scalar, b: Scalar) -> Scalar:
    """The larger of two signed integers."""
    return scalar(arith.maxsi(value(a), value(b)))


def least(a: Scalar, b: Scalar) -> Scalar:
    """The smaller of two floats; of one and NaN the one."""
    return asm("min.f32 $0, $1, $2;", a, b, out=F32)


def most(a: Scalar, b: Scalar) -> Scalar:
    """The larger of two floats; of one and NaN the one."""
    return asm("max.f32 $0, $1, $2;", a, b, out=F32)


def magnitude(x: Scalar) -> Scalar:
    """Of a float."""
    return asm("abs.f32 $0, $1;", x, out=F32)


def to_float(x: Scalar) -> Scalar:
    """A signed integer as a float."""
    return scalar(arith.sitofp(ir.F32Type.get(), value(x)))


def choose(mask: Scalar, a: Scalar, b: Scalar) -> Scalar:
    """`a` where the mask holds, else `b`."""
    return scalar(arith.select(value(mask), value(a), value(b)))


def entry(vector: Scalar) -> Scalar:
    """This thread's entry of a vector with one a thread."""
    register = vector.registers.item()
    if isinstance(register.type, ir.VectorType):
        register = mlir_vector.extract(register, dynamic_position=[], static_position=[0])
    return scalar(register)


def vector(x: Scalar) -> Scalar:
    """The inverse of `entry`, of f32."""
    kind = ir.VectorType.get((1,), ir.F32Type.get())
    registers = np.asarray([mlir_vector.broadcast(kind, value(x))], dtype=object)
    return Scalar(_registers=registers, _layout=VECTOR.to_mgpu(), _is_signed=None)


def emit_if(mask: Scalar, body: Callable[[], None]) -> None:
    """Code that the threads run where the mask holds; `body` writes it."""
    branch = scf.IfOp(value(mask))
    with ir.InsertionPoint(branch.then_block):
        body()
        scf.yield_([])


def emit_for(start: Scalar, stop: Scalar, step: int, body: Callable[[Scalar], None]) -> None:
    """Code that is run for start, start + step ... below stop; `body` writes it. Bounds may differ in each thread."""
    turns = scf.ForOp(value(start), value(stop), value(integer(step)))
    with ir.InsertionPoint(turns.body):
        body(scalar(turns.induction_variable))
        scf.yield_([])


def emit_sum(start: Scalar, stop: Scalar, step: int, total: Scalar, body: Callable[[Scalar, Scalar], Scalar]) -> Scalar:
    """Like `emit_for`, with a number that goes from turn to turn: `body` takes and returns it."""
    turns = scf.ForOp(value(start), value(stop), value(integer(step)), [value(total)])
    with ir.InsertionPoint(turns.body):
        scf.yield_([value(body(scalar(turns.induction_variable), scalar(turns.inner_iter_args[0])))])
    return scalar(turns.results[0])


def emit_either(mask: Scalar, body: Callable[[], Scalar], otherwise: Scalar) -> Scalar:
    """What `body` gives in the threads where the mask holds; only they run it."""
    branch = scf.IfOp(value(mask), [otherwise.registers.item().type], has_else=True)
    with ir.InsertionPoint(branch.then_block):
        scf.yield_([value(body())])
    other: Any = branch.else_block
    with ir.InsertionPoint(other):
        scf.yield_([value(otherwise)])
    return scalar(branch.results[0])


def inline(function: Callable[..., Any]) -> Callable[..., Any]:
    """Makes a function that writes code a call inside a Pallas kernel.

    Args:
        function: annotated with what it takes (`Ref`, `PerThread`, `Vector`) and returns (None, `Flag`, `Vector`).
    """
    *arguments, result = inspect.get_annotations(function).values()
    call = plgpu.inline_mgpu(arg_types=tuple(_ARGUMENTS[a] for a in arguments), return_type=_RESULTS[result])
    return call(lambda _, *args: function(*args))
