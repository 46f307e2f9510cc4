"""Amounts as people write them."""

import time
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.model import quantity as q


@pytest.mark.parametrize(
    ("text", "amount"),
    [
        ("0", 0),
        (4096, 4096),
        ("256Mi", 256 << 20),
        ("256M", 256_000_000),
        ("1k", 1000),
        ("1Ki", 1024),
        ("0.5Gi", 1 << 29),
        (".5Gi", 1 << 29),
        ("1.Gi", 1 << 30),
        ("1e3", 1000),
        ("1E3", 1000),
        ("1E", 10**18),
        ("1.5e1", 15),
        ("12e-1Ki", None),
        (1e3, 1000),
        (1e18, 10**18),
        ("0.1Gi", 107_374_183),
        ("7Ei", 7 << 60),
        (str(2**63 - 1), 2**63 - 1),
    ],
)
def test_bytes_are_kubernetes_quantities(text, amount):
    if amount is None:
        with pytest.raises(ValueError, match="not a quantity"):
            q.parse_bytes(text)
    else:
        assert q.parse_bytes(text) == amount


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("256Mb", "use 256M or 256Mi"),
        ("256MB", "use 256M or 256Mi"),
        ("256m", "use 256M or 256Mi"),
        ("256 Mi", "use 256Mi"),
        ("256MiB", "use 256Mi"),
        ("1K", "use 1k or 1Ki"),
        ("-1", "below zero"),
        ("0.5", "whole number of bytes"),
        ("8Ei", "too much"),
        ("1e99", "too much"),
        ("", "use for example"),
        ("max", "use for example"),
        ("nan", "use for example"),
        ("0x10", "use for example"),
        ("1_000", "use for example"),
        ("٣", "use for example"),
        ("1Mi\n", "use 1Mi"),
        ("9" * 1_000_000, "not a quantity"),
    ],
)
def test_bytes_that_could_mean_two_things_are_refused_with_both(text, hint):
    with pytest.raises(ValueError, match=hint) as refused:
        q.parse_bytes(text)
    assert "\n" not in str(refused.value)
    assert len(str(refused.value)) < 200


@given(st.integers(0, q.MOST_BYTES))
def test_bytes_round_trip(amount):
    text = q.format_bytes(amount)
    assert q.parse_bytes(text) == amount
    assert len(text) <= len(str(amount))


@given(st.integers(1, 1023), st.sampled_from(["Ki", "Mi", "Gi", "Ti", "Pi"]))
def test_round_amounts_are_printed_as_they_are_written(number, suffix):
    assert q.parse_bytes(q.format_bytes(number * q.BYTES[suffix])) == number * q.BYTES[suffix]
    assert len(q.format_bytes(number * q.BYTES[suffix])) <= len(f"{number}{suffix}")


@pytest.mark.parametrize(
    ("amount", "text"),
    [
        (0, "0"),
        (1, "1"),
        (1001, "1001"),
        (1000, "1k"),
        (1024, "1Ki"),
        (256 << 20, "256Mi"),
        (3 << 29, "1536Mi"),
    ],
)
def test_bytes_print_shortest(amount, text):
    assert q.format_bytes(amount) == text


@pytest.mark.parametrize(
    ("text", "amount"),
    [("50Mi/s", 50 << 20), ("1.5M/s", 1_500_000), ("512/s", 512), ("0.3333Ki/s", None), ("512.1/s", 513)],
)
def test_rates_of_disks_are_bytes_each_second_rounded_up(text, amount):
    if amount is None:
        with pytest.raises(ValueError, match="too little: at least 512/s"):
            q.parse_byte_rate(text)
    else:
        assert q.parse_byte_rate(text) == amount


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("50Mi", "use 50Mi/s"),
        ("50MB/s", "use 50M/s or 50Mi/s"),
        ("50MBps", "use 50M/s or 50Mi/s"),
        ("50 MiB/s", "use 50Mi/s"),
        ("50Mbit", "use for example 50Mi/s"),
        ("50", "use for example 50Mi/s"),
        ("8Ei/s", "write max for no limit"),
        ("max", "use for example"),
    ],
)
def test_rates_of_disks_without_a_second_or_in_bits_are_refused(text, hint):
    with pytest.raises(ValueError, match=hint):
        q.parse_byte_rate(text)


@pytest.mark.parametrize(
    ("text", "milli"),
    [("1.5", 1500), ("500m", 500), (2, 2000), (0.5, 500), ("0", 0), ("0.001", 1), (1.1, 1100)],
)
def test_cpus_are_thousandths(text, milli):
    assert q.parse_cpu(text) == milli


@pytest.mark.parametrize("text", ["", "-1", "1.0005", "0.5m", "1e3", "max", "1 ", "100001", "½", "1.5.5"])
def test_cpus_are_refused(text):
    with pytest.raises(ValueError, match="cpu"):
        q.parse_cpu(text)


@pytest.mark.parametrize(
    ("text", "ms"),
    [
        ("10s", 10_000),
        ("200ms", 200),
        ("1m", 60_000),
        ("10d", 864_000_000),
        ("1h30m", 5_400_000),
        ("1d2h3m4s5ms", 93_784_005),
        ("1.5s", 1500),
        ("0", 0),
        (0, 0),
        ("0s", 0),
    ],
)
def test_durations_are_milliseconds(text, ms):
    assert q.parse_duration(text) == ms


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("10", "use 10s or 10ms"),
        (10, "use 10s or 10ms"),
        ("", "for example"),
        ("s", "for example"),
        ("1m1h", "largest unit first"),
        ("-1s", "for example"),
        ("1 s", "for example"),
        ("0.5ms", "finer than a millisecond"),
        ("1s\n", "for example"),
        ("100000d", "at most 36500d"),
    ],
)
def test_durations_are_refused(text, hint):
    with pytest.raises(ValueError, match=hint):
        q.parse_duration(text)


@given(st.integers(0, q.MOST_MS))
def test_durations_round_trip(ms):
    assert q.parse_duration(q.format_duration(ms)) == ms


def test_durations_print_largest_unit_first():
    assert [q.format_duration(ms) for ms in (0, 200, 90_000, 5_400_000, -1500)] == [
        "0s",
        "200ms",
        "1m30s",
        "1h30m",
        "-1s500ms",
    ]


@given(st.frozensets(st.integers(0, q.MOST_CPU_NUMBER), min_size=1, max_size=300))
def test_cpu_lists_round_trip(numbers):
    assert q.parse_cpu_list(q.format_cpu_list(numbers)) == numbers


def test_cpu_lists_print_as_the_kernel_does():
    assert q.format_cpu_list([3, 1, 0, 5, 6, 7]) == "0-1,3,5-7"
    assert q.format_cpu_list([]) == ""
    assert q.parse_cpu_list("0-1,3") == frozenset({0, 1, 3})


@pytest.mark.parametrize(
    "text", ["", "0,", ",0", "1-0", "a", "0-", "-1", "0 1", "9999", "0-9999", "0\n", "0-1-2"]
)
def test_cpu_lists_are_refused(text):
    with pytest.raises(ValueError, match=r"list of numbers|ends before|beyond"):
        q.parse_cpu_list(text)


def test_a_huge_cpu_list_is_refused_without_being_read():
    begin = time.thread_time()
    with pytest.raises(ValueError, match="list of numbers"):
        q.parse_cpu_list("0-8191," * 100_000 + "0")
    assert time.thread_time() - begin < 0.05


@given(
    st.text(max_size=50), st.sampled_from([q.parse_bytes, q.parse_cpu, q.parse_duration, q.parse_cpu_list])
)
def test_text_is_read_or_refused_with_a_value_error(text, parse):
    said = ""
    try:
        parse(text)
    except ValueError as error:
        said = str(error)
    assert len(said.splitlines()) <= 1


@given(st.decimals(min_value=0, max_value=1000, places=3), st.sampled_from(["Mi", "Gi", "k", "M"]))
def test_fractions_are_exact_and_rounded_up(number, suffix):
    exact = Fraction(str(number)) * q.BYTES[suffix]
    assert exact <= q.parse_bytes(f"{number}{suffix}") < exact + 1
