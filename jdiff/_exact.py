"""Contractions at full float32 precision, for everything that is compared with mathematics.

float32 contractions run in bfloat16 on TPUs and TF32 on GPUs unless told otherwise, and no CPU
number shows it. Denoisers in closed form, measures and laws contract through these functions;
networks keep the library's default.
"""

import jax
import jax.numpy as jnp

HIGHEST = jax.lax.Precision.HIGHEST


def dot(a: jax.Array, b: jax.Array) -> jax.Array:
    """`a @ b` at Precision.HIGHEST."""
    return jnp.matmul(a, b, precision=HIGHEST)


def einsum(subscripts: str, *operands: jax.Array) -> jax.Array:
    """`jnp.einsum(subscripts, *operands)` at Precision.HIGHEST."""
    return jnp.einsum(subscripts, *operands, precision=HIGHEST)
