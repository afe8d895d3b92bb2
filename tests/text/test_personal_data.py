"""Numbers and addresses that lead to a person are found; numbers that merely look like one are not.

No number here is anyone's: they are of the ranges for fiction, or made from all but a check digit.
"""

import datetime
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from indexlm.config import PrivacyConfig
from indexlm.text.filters.personal_data import KINDS, is_identity_number, is_luhn


def found(text: str, private_addresses: bool = False) -> list[tuple[str, str]]:
    return [
        (kind, text[span.start : span.end])
        for kind, find in KINDS.items()
        for span in find(text, private_addresses)
    ]


def identity(rng: random.Random) -> str:
    """A number of the form of an identity number, its check digit by the congruence itself."""
    day = datetime.date(1950, 1, 1) + datetime.timedelta(rng.randrange(25000))
    first = f"{rng.choice([11, 31, 44, 51, 71])}{rng.randrange(10**4):04}{day:%Y%m%d}"
    first += f"{rng.randrange(1000):03}"
    # ISO 7064: the sum of digit times 2^place is 1 modulo 11, with X for ten.
    total = sum(int(digit) * 2 ** (17 - place) for place, digit in enumerate(first))
    return first + "0123456789X"[(1 - total) % 11]


def card(rng: random.Random, first: str, length: int) -> str:
    digits = first + "".join(rng.choices("0123456789", k=length - len(first) - 1))
    return next(digits + last for last in "0123456789" if luhn_holds(digits + last))


def luhn_holds(number: str) -> bool:
    total = 0
    for place, digit in enumerate(reversed(number)):
        value = int(digit) * (1 + place % 2)
        total += value - 9 if value > 9 else value
    return total % 10 == 0


RNG = random.Random(1)
IDENTITY, CARD, UNION = identity(RNG), card(RNG, "4", 16), card(RNG, "622202", 19)
SPACED = " ".join(CARD[at : at + 4] for at in range(0, 16, 4))

POSITIVE = [
    ("email", "write to ann.lee+news@mail.some-firm.co.uk.", "ann.lee+news@mail.some-firm.co.uk"),
    ("email", "邮箱abc_123@qq.com，欢迎来信", "abc_123@qq.com"),
    ("email", "<JIN.LI@SOHU.COM>", "JIN.LI@SOHU.COM"),
    ("phone", "电话13800000000。", "13800000000"),
    ("phone", "请拨打 138-0000-0000", "138-0000-0000"),
    ("phone", "手机：+86 138 0000 0000", "+86 138 0000 0000"),
    ("phone", "联系电话：010-50000000转3", "010-50000000"),
    ("phone", "（0571）是区号，(0571)80000000", "(0571)80000000"),
    ("phone", "或者 010-8000 0000", "010-8000 0000"),
    ("phone", "热线01080000000", "01080000000"),
    ("phone", "Call (212) 555-3456 now", "(212) 555-3456"),
    ("phone", "212.555.3456 is the office", "212.555.3456"),
    ("phone", "ring 1-212-555-3456, please", "1-212-555-3456"),
    ("phone", "London: +44 (0)20 7946 0000", "+44 (0)20 7946 0000"),
    ("phone", "Paris +33 1 99 00 00 00.", "+33 1 99 00 00 00"),
    ("phone", "Reykjavik (+354 555 0000)", "+354 555 0000"),
    ("id_number", f"身份证{IDENTITY}，姓名", IDENTITY),
    ("id_number", "身份证号码：110105491231002", "110105491231002"),
    ("bank_card", f"卡号：{UNION}。", UNION),
    ("bank_card", f"pay with {SPACED}, thanks", SPACED),
    ("bank_card", f"card {CARD}", CARD),
    ("ip_address", "from 203.0.112.77 at noon", "203.0.112.77"),
    ("ip_address", "服务器 8.9.10.11 没有回答", "8.9.10.11"),
    ("ip_address", "http://61.135.0.9:8080/index.html", "61.135.0.9"),
    ("ip_address", "host [2400:cb00:2048:1::6810]", "2400:cb00:2048:1::6810"),
]

NEGATIVE = [
    "2008-06-09 11:40:58，2019年12月31日，1998-2003, 12/31/1999, 20240131 123059",
    "ISBN 978-7-111-05425-2, ISBN 9787111054252, ISSN 1000-9825",
    "订单号：13912345678；订单编号 13912345678，运单 13912345678",
    "order no. 13912345678, serial 4111111111111111, tracking 4111111111111111",
    "doi:10.1037/0033-2909.97.2.286, DOI: 10.1080/15374416.2017.1417860",
    "https://some.org/story/13912345678/4111111111111111?id=13912345678",
    "pi = 3.14159265358979, e = 2.718281828459045, 6.02214076e23, 0.13912345678",
    "f(x) = 4111111111111111 + 13912345678, x^13912345678, -13912345678, 2*13912345678",
    "0x13912345678, SEED_13912345678, a13912345678, 13912345678L, MAX=13912345678",
    "共13912345678元，13912345678人，13,912,345,678 and 13912345678 bytes, 13912345678%",
    "￥13912345678, $13912345678, €4111111111111111",
    "version 1.2.3.4, v10.0.190.1, 版本 5.15.0.176, Chrome/114.0.0.0, §3.2.100.1, release 2.0.0.1",
    "3.2.1.4 is a section, 买的时候是1.8.8.8，才降到1.6.9.9",
    "127.0.0.1, 192.168.1.100, 10.0.0.138, 172.16.5.140, 255.255.255.0, 0.0.0.0, 192.0.2.200",
    "2001:db8::1, ::1, fe80::1ff:fe23:4567:890a, std::vector, 12:30:45:10, aa:bb:cc:dd:ee:ff",
    "999.999.999.999, 256.100.100.100, 1.2.3.4.5, 01.102.103.104",
    "git@github.com:owner/project.git, me@example.com, x@example.org, you@mail.invalid",
    "logo@2x.png, pkg@1.2.3, @decorator, a @ b.T, W@x.transpose, A@b.to(device), 5 @ 3.com",
    "555-0100, (212) 555-0123, 212-555-0199, 123-456-7890, 911-555-3456, 2019-555-3456",
    "+10 000 000 people, a +12345, C++11, x+1391234567, (a)+4420794600001",
    "110105199013011230, 110105194912310020, 身份证 110105491331002, 110105491231002",
    "4111111111111112, 9111111111111111, 4111 1111 1111 1112, 0000 0000 0000 0000",
    "138000000001, 1380000000, 12800000000, 010-10000000, 099-50000000, 010800000001",
    "2147483647 4294967296 18446744073709551615 1700000000 1700000000000 11111111111",
    "邮编100080，QQ 282369262，工号0649，车牌京A12345，第13912345678条",
    "GB 11643-1999, ISO 7064:2003, RFC 5321, 400 811 000 000, 1/3, 16:9",
]


@pytest.mark.parametrize(("kind", "text", "expected"), POSITIVE)
def test_personal_data_is_found_in_full(kind: str, text: str, expected: str) -> None:
    assert found(text) == [(kind, expected)]


@pytest.mark.parametrize("text", NEGATIVE)
def test_other_numbers_and_names_are_left(text: str) -> None:
    assert found(text) == []


def test_several_stand_side_by_side() -> None:
    text = "电话13800000000，13800000001,13800000002；a1@qq.com,b2@qq.com+c3@qq.com"
    assert [value for _, value in found(text)] == [
        *("a1@qq.com", "b2@qq.com", "c3@qq.com"),
        *("13800000000", "13800000001", "13800000002"),
    ]


def test_private_addresses_count_when_asked() -> None:
    text = "192.168.1.100 and 2001:db8:1:2::3"
    assert found(text, private_addresses=True) == [
        ("ip_address", "192.168.1.100"),
        ("ip_address", "2001:db8:1:2::3"),
    ]


def test_every_kind_has_a_setting() -> None:
    assert set(KINDS) < set(PrivacyConfig.model_fields)


@given(st.integers(0, 2**32), st.integers(0, 17), st.integers(1, 10))
def test_an_identity_number_with_one_digit_changed_is_none(seed: int, place: int, by: int) -> None:
    number = identity(random.Random(seed))
    assert is_identity_number(number)
    assert found(f"号码{number}。") == [("id_number", number)]
    digits = "0123456789X" if place == 17 else "0123456789"
    changed = digits[(digits.index(number[place]) + by) % len(digits)]
    other = number[:place] + changed + number[place + 1 :]
    assert other == number or not is_identity_number(other)


@given(st.integers(0, 2**32), st.integers(0, 15), st.integers(1, 9))
def test_a_card_number_with_one_digit_changed_is_none(seed: int, place: int, by: int) -> None:
    number = card(random.Random(seed), "4", 16)
    assert is_luhn(number)
    other = number[:place] + str((int(number[place]) + by) % 10) + number[place + 1 :]
    assert not is_luhn(other)
    assert found(f"的{other}。") == []


PARTS = st.one_of(
    st.text("0123456789", min_size=1, max_size=20),
    st.sampled_from(
        [" ", "-", ".", "(", ")", "+", "/", ":", ",", "，", "\n", "@", "=", "x", "电话"]
    ),
    st.sampled_from(["138", "010", "+86", "4", "62", "19900101", "212", "身份证", "order "]),
    st.integers(0, 2**32).map(lambda seed: identity(random.Random(seed))),
    st.integers(0, 2**32).map(lambda seed: card(random.Random(seed), "62", 16)),
)


@settings(max_examples=300, deadline=None)
@given(st.lists(PARTS, max_size=12).map("".join))
def test_no_digits_are_taken_that_fail_the_check_of_their_kind(text: str) -> None:
    for kind, value in found(text):
        digits = "".join(letter for letter in value if letter.isdigit())
        if kind == "bank_card":
            assert luhn_holds(digits)
            assert 14 <= len(digits) <= 19
        elif kind == "id_number":
            born = value[6:14] if len(value) == 18 else "19" + value[6:12]
            datetime.date(int(born[:4]), int(born[4:6]), int(born[6:]))
            weighed = sum(
                (10 if digit in "Xx" else int(digit)) * 2 ** (17 - place)
                for place, digit in enumerate(value)
            )
            assert len(value) == 15 or weighed % 11 == 1
        elif kind == "phone":
            assert 10 <= len(digits) <= 17
            assert value[0] in "+(012345678"
        elif kind == "ip_address":
            assert ":" in value or all(int(number) < 256 for number in value.split("."))
