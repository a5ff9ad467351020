"""One training step, written for one device, and the compiled programs around it.

Example i of step t is drawn on the device from fold_in(fold_in(key, t), i), i its place in the
global batch, so that a resumed run repeats what an uninterrupted one does, and eight devices see
what one sees; but for dropout, and for the moments of batch normalisation, which are those of a
device's part of the batch (of the running ones all devices keep the mean). The gradient is
psum(sum_i w_i g_i) / psum(sum_i w_i), w_i = 0 for the rows that pad a batch which does not divide
over the devices.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

from jdiff import _flops, noise, parallel
from jdiff.data import batches
from jdiff.denoisers.network import default_preconditioning
from jdiff.training.objective import losses
from jdiff.training.state import TrainConfig, TrainState, optimizer

# Folded into an example's key, beside batches.INDEX.
_LEVEL, _NOISE, _LABEL = 1, 2, 3
# In the place of an example's number, and larger than any.
_DROPOUT = 2**31 - 1


def make_step(module: nn.Module, config: TrainConfig) -> Callable:
    """The training step of one device: (state, data) -> (state, loss of the batch before it).

    `data` is (images, labels, cdf, data_std, key, level), as every device holds them; level is the
    one noise level that is trained at, None where levels are drawn.
    """
    loss_of = _loss_function(module, config)
    update_rule = optimizer(config)

    def step(state: TrainState, data: tuple) -> tuple[TrainState, jax.Array]:
        params, stats = state.variables["params"], _without_params(state.variables)

        def objective(params: Any) -> tuple[jax.Array, Any]:
            variables = {"params": params, **stats}
            return loss_of(variables, data, state.step, config.batch_size, train=True)

        (total, (count, stats)), gradient = jax.value_and_grad(objective, has_aux=True)(params)
        total, count, gradient = parallel.sum_devices((total, count, gradient))
        gradient = jax.tree.map(lambda g: g / count, gradient)
        updates, opt_state = update_rule.update(gradient, state.opt_state, params)
        stats = jax.tree.map(lambda s: s / parallel.num_devices(), parallel.sum_devices(stats))
        variables = {"params": optax.apply_updates(params, updates), **stats}
        decay = jnp.minimum(config.ema_decay, (1 + state.step) / (10 + state.step))
        ema = jax.tree.map(lambda e, v: e + (1 - decay) * (v - e), state.ema, variables)
        return TrainState(state.step + 1, variables, ema, opt_state), total / count

    return step


class Programs(NamedTuple):
    """The compiled programs of a run.

    Attributes:
      init: key -> TrainState of one device.
      call: (state, (data, count)) -> (state, losses [most]): `count` steps, at most `most`; the
        state is stacked over devices, donated, and comes back.
      evaluate: (variables, (data, batch)) -> [2]: sum of held-out losses, number of examples.
      most: the most steps of one call.
    """

    init: Callable
    call: Callable
    evaluate: Callable
    most: int


def programs(module: nn.Module, config: TrainConfig, image_shape: tuple[int, int, int]) -> Programs:
    """The programs of a network and a configuration.

    What they do not depend on does not compile them again: another seed, another level where one
    level is trained at, and under a constant learning rate another number of steps.
    """
    most = config.steps_per_call
    if most is None:
        alone = jax.default_backend() == "cpu" and _has_convolution(module, image_shape)
        most = 1 if alone else min(100, config.steps)
    config = dataclasses.replace(
        config,
        steps=most if config.schedule == "constant" else config.steps,
        steps_per_call=most,
        noise=config.noise if isinstance(config.noise, str) else 1.0,  # a level is an argument
        eval_every=None,
        checkpoint_every=None,
    )
    return _programs(module, config, image_shape)


@functools.lru_cache(maxsize=64)
def _programs(
    module: nn.Module, config: TrainConfig, image_shape: tuple[int, int, int]
) -> Programs:
    step = make_step(module, config)
    loss_of = _loss_function(module, config)

    def init(key: jax.Array) -> TrainState:
        x, c_noise = jnp.zeros((1, *image_shape), jnp.float32), jnp.zeros((1,), jnp.float32)
        # What a network sows is for those who ask; it is no part of its state.
        variables = {k: v for k, v in module.init(key, x, c_noise).items() if k != "intermediates"}
        opt_state = optimizer(config).init(variables["params"])
        return TrainState(jnp.zeros((), jnp.int32), variables, variables, opt_state)

    most = config.steps_per_call
    assert most is not None

    def call(state: TrainState, shared: tuple) -> tuple[TrainState, jax.Array]:
        data, count = shared
        if most == 1:
            state, loss = step(state, data)
            return state, loss[None]

        def body(i: jax.Array, carry: Any) -> Any:
            state, values = carry
            state, loss = step(state, data)
            return state, values.at[i].set(loss)

        # A traced count: one compiled program makes any number of steps up to `most`.
        return jax.lax.fori_loop(0, count, body, (state, jnp.zeros((most,), jnp.float32)))

    def evaluate(variables: Any, shared: tuple) -> jax.Array:
        data, batch = shared
        total, (count, _) = loss_of(variables, data, batch, config.eval_examples, train=False)
        return jnp.stack(parallel.sum_devices((total, count)))

    convolutions = _has_convolution(module, image_shape)
    mapped = functools.partial(parallel.map_devices, in_axes=(0, None), convolutions=convolutions)
    return Programs(jax.jit(init), mapped(call, donate_argnums=(0,)), mapped(evaluate), most)


def _loss_function(module: nn.Module, config: TrainConfig) -> Callable:
    """(variables, data, batch number, examples, train) -> (sum of losses, (examples, statistics)).

    Written for one device, which takes its part of the batch. In training, batch t has
    `batch_size` examples; in evaluation the `examples` fixed draws come in such batches, the
    last one not full.
    """
    preconditioning = config.preconditioning or default_preconditioning(module)
    one_level = not isinstance(config.noise, str)
    draw_sigma = noise.training_noise(config.noise)
    conditional = getattr(module, "num_classes", None) is not None
    per_device = parallel.rows_per_device(config.batch_size)

    def loss_of(variables: Any, data: tuple, batch: jax.Array, examples: int, train: bool) -> Any:
        images, labels, cdf, data_std, key, level = data
        place = parallel.axis_index() * per_device + jnp.arange(per_device)
        first = 0 if train else batch * config.batch_size
        counted = (place < config.batch_size) & (first + place < examples)
        keys = batches.example_keys(key, batch, place)
        rows = batches.draw(keys, len(images), cdf)
        x = batches.gather(images, rows)
        fold = lambda purpose: jax.vmap(jax.random.fold_in, (0, None))(keys, purpose)
        sigma = (
            jnp.full(per_device, level, jnp.float32)
            if one_level
            else jax.vmap(draw_sigma)(fold(_LEVEL))
        )
        z = jax.vmap(lambda key: jax.random.normal(key, x.shape[1:], x.dtype))(fold(_NOISE))
        label = None
        if conditional and labels is not None:
            label = labels[rows]
            if train:
                uniform = lambda key: jax.random.uniform(key, (), jnp.float32)
                dropped = jax.vmap(uniform)(fold(_LABEL)) < config.label_dropout
                label = jnp.where(dropped, module.num_classes, label)
        dropout = jax.random.fold_in(jax.random.fold_in(key, batch), _DROPOUT)
        dropout = jax.random.fold_in(dropout, parallel.axis_index())
        stats = _without_params(variables)

        def apply(x: jax.Array, c_noise: jax.Array) -> jax.Array:
            nonlocal stats
            f, updated = module.apply(
                variables,
                x,
                c_noise,
                labels=label,
                train=train,
                rngs={"dropout": dropout} if train else None,
                mutable=list(stats) if train else [],
            )
            stats = {**stats, **updated}
            return f

        values = losses(apply, preconditioning, data_std, x, sigma, z)
        return jnp.sum(jnp.where(counted, values, 0)), (jnp.sum(counted), stats)

    return loss_of


def _without_params(variables: Any) -> dict:
    return {name: value for name, value in variables.items() if name != "params"}


@functools.lru_cache(maxsize=64)
def _has_convolution(module: nn.Module, image_shape: tuple[int, int, int]) -> bool:
    x = jax.ShapeDtypeStruct((1, *image_shape), jnp.float32)
    c_noise = jax.ShapeDtypeStruct((1,), jnp.float32)
    variables = jax.eval_shape(module.init, jax.random.key(0), x, c_noise)
    return _flops.has_convolution(lambda v, x, c: module.apply(v, x, c), variables, x, c_noise)
