"""How a number is printed: three significant digits, a dash for what is missing.

Nothing is rounded away from sight: the page carries every full value beside its printed form.
"""

import functools
import math
import numbers
from collections.abc import Callable, Mapping, Sequence
from typing import Any

DASH = "–"


def missing(value: Any) -> bool:
    """Whether `value` has nothing to print: None, an empty text or list, NaN or infinite."""
    if isinstance(value, numbers.Real):
        return not math.isfinite(value)
    return value is None or (isinstance(value, str | Sequence | Mapping) and not len(value))


def significant(value: float | None, digits: int = 3, scale: float | None = None) -> str:
    """Prints a number with `digits` significant digits.

    Args:
      value: the number.
      digits: how many of its digits are printed.
      scale: a number whose last printed digit this one shall share, as the ends of an interval do.

    Example:
      >>> significant(0.04123), significant(1234.5), significant(-2e-6), significant(None)
      ('0.0412', '1,234', '−2.00e−6', '–')
    """
    if value is None or missing(value):
        return DASH
    scale = abs(value if scale is None else scale)
    if scale == 0:
        return "0"
    exponent = math.floor(math.log10(scale))
    if -4 <= exponent < 6:
        text = f"{value:,.{max(0, digits - 1 - exponent)}f}"
    else:
        mantissa, power = f"{value:.{digits - 1}e}".split("e")
        text = f"{mantissa}e{int(power)}"
    return text.replace("-", "−")


def proportion(value: float | None) -> str:
    """Prints a number in [0, 1] with three decimals, so that a column of them lines up."""
    return DASH if value is None or missing(value) else f"{value:.3f}".replace("-", "−")


def count(value: float | None) -> str:
    """Prints a large number in thousands, millions, and so on.

    Example:
      >>> count(350_000), count(1.42e9), count(64)
      ('350 k', '1.42 G', '64')
    """
    if value is None or missing(value):
        return DASH
    for power, unit in ((12, " T"), (9, " G"), (6, " M"), (3, " k")):
        if abs(value) >= 10**power:
            return significant(value / 10**power) + unit
    return f"{value:.0f}" if float(value).is_integer() else significant(value)


def interval(ends: Sequence[float] | None, form: Callable[[float], str] | None = None) -> str:
    """Prints an interval, both ends with the same decimals.

    Args:
      ends: low and high, or None.
      form: how a number is printed; by default with three significant digits.

    Example:
      >>> interval([0.951, 0.984], proportion), interval([0.0926, 0.113]), interval([-1.5, 0.25])
      ('0.951–0.984', '0.093–0.113', '−1.50 to 0.25')
    """
    if ends is None or len(ends) != 2 or any(missing(end) for end in ends):
        return DASH
    low, high = ends
    if form is None or form is significant:
        form = functools.partial(significant, scale=max(map(abs, ends)))
    return f"{form(low)}{' to ' if low < 0 else '–'}{form(high)}"


def full(value: Any) -> str:
    """A number with all its digits, as results.json has it."""
    return repr(value.item() if hasattr(value, "item") else value)


def plain(value: Any) -> str:
    """Prints a setting of any kind in words: lists by their ends, mappings as name = value.

    Example:
      >>> plain({"solver": "ddim", "sigmas": [80.0, 10.0, 2.0, 0.5, 0.1, 0.0]})
      'solver = ddim; sigmas = 80, 10, … 0.1, 0 (6 values)'
    """
    if missing(value):
        return DASH
    if isinstance(value, bool) or isinstance(value, str):
        return str(value)
    if isinstance(value, numbers.Integral):
        return f"{value:,}"
    if isinstance(value, numbers.Real):
        return f"{value:.4g}"
    if isinstance(value, Mapping):
        return "; ".join(f"{name} = {plain(entry)}" for name, entry in value.items())
    if isinstance(value, Sequence):
        entries = [plain(entry) for entry in value]
        if len(entries) > 5 and not any(isinstance(entry, str | Mapping) for entry in value):
            return (
                f"{entries[0]}, {entries[1]}, … {entries[-2]}, {entries[-1]} ({len(value)} values)"
            )
        return ", ".join(entries)
    return str(value)
