"""Numbers as people read them: three digits and a unit."""

from __future__ import annotations


def duration(seconds: float | None) -> str:
    """Return a duration: "1.23 ms".

    >>> duration(0.0012345), duration(123e-6), duration(12.3), duration(None)
    ('1.23 ms', '123 µs', '12.3 s', '-')
    """
    if seconds is None:
        return "-"
    unit, scale = "µs", 1e6
    if seconds >= 0.9995:
        unit, scale = "s", 1.0
    elif seconds >= 0.9995e-3:
        unit, scale = "ms", 1e3
    return f"{three_digits(seconds * scale)} {unit}"


def three_digits(value: float | None) -> str:
    """Return a number with three digits, whole ones in groups of thousands.

    >>> [three_digits(value) for value in (0.01234, 1.234, 123.4, 12345.0)]
    ['0.012', '1.23', '123', '12 345']
    """
    if value is None or value != value:
        return "-"
    digits = 3 if value < 0.0995 else 2 if value < 9.995 else 1 if value < 99.95 else 0
    return f"{value:,.{digits}f}".replace(",", " ")


def times(factor: float | None) -> str:
    """Return how many times as fast.

    >>> times(12.34), times(0.004), times(None)
    ('12.3x', '<0.01x', '-')
    """
    text = "<0.01" if factor is not None and factor < 0.005 else three_digits(factor)
    return text if text == "-" else f"{text}x"


def percent(fraction: float | None) -> str:
    """Return a fraction in percent.

    >>> percent(0.0123), percent(0.456), percent(None)
    ('1.2%', '46%', '-')
    """
    if fraction is None or fraction != fraction:
        return "-"
    return f"{100 * fraction:.{1 if fraction < 0.0995 else 0}f}%"


def size(count: int) -> str:
    """Return bytes with a unit.

    >>> size(0), size(1536), size(33 * 2**20)
    ('0', '1.5 KiB', '33 MiB')
    """
    for unit, scale in (("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10)):
        if count >= scale:
            value = count / scale
            return f"{value:.{1 if value < 9.95 else 0}f} {unit}"
    return f"{count} B" if count else "0"


def bar(fraction: float | None, width: int) -> str:
    """Return a bar of text, full for 1, with a resolution of an eighth of a character.

    >>> bar(0.5, 4), bar(0.3, 4), bar(0.001, 4)
    ('██', '█▎', '')
    """
    eighths = round(min(1.0, fraction or 0.0) * width * 8)
    return "█" * (eighths // 8) + " ▏▎▍▌▋▊▉"[eighths % 8].strip()
