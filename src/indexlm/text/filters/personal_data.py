"""Personal data in a text: found by its form and by what its form must obey.

A number counts only where it passes a check of its kind: a resident identity number its date and
check digit, a card its issuer and check digit, a phone number its numbering plan, an address its
range. What stands around it decides where the form alone does not (order numbers, versions).
"""

import datetime
import ipaddress
import re
from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import NamedTuple

EMAIL = "name@example.com"
"""Placeholders are values that no one can have, in the form of what they stand for, so that a text
reads on in either language. RFC 2606 keeps this domain for examples."""
PHONE = "000-0000-0000"
"""No numbering plan has it, in any country."""
IDENTITY = "000000000000000000"
CARD = "0000 0000 0000 0000"
IPV4, IPV6 = "192.0.2.0", "2001:db8::"
"""Of the ranges for documentation: RFC 5737, RFC 3849."""


class Span(NamedTuple):
    """Where something stands, in characters, and what may stand there instead."""

    start: int
    end: int
    placeholder: str


# What stands around a number

_BEFORE = 16
"""Characters before a number in which a word can say what it is."""
_PHONE_WORDS = re.compile(
    r"电话|手机|热线|传真|联系|致电|拨打|咨询|微信|(?<![a-z])(?:tel|phone|mobile|cell|fax|call)",
    re.I,
)
_CARD_WORDS = re.compile(r"卡号|银行卡|信用卡|[账帐]号|(?<![a-z])(?:card|visa|account)", re.I)
_IDENTITY_WORDS = re.compile(r"身份证|证件|identity card|(?<![a-z])id(?![a-z])", re.I)
_OTHER_NUMBER = re.compile(
    r"(?:单号|编号|订单|流水|运单|快递|货号|型号|序列|[学工书批]号|条码|邮编|第|注册号|许可证|证号"
    r"|(?<![a-z])(?:isbn|issn|doi|order|invoice|serial|tracking|ticket|part|item|model|no|u?id|sku"
    r"|ean|upc|gtin|hash|seed|time(?:stamp)?))[\s.:：#号码为是_-]*\Z|[=+#№$¥￥€£*^<>≈]\s*\Z|-\Z",
    re.I,
)
_UNIT = re.compile(r"\s?(?:[%％‰元万亿个人次美]|bytes|dollars|USD|RMB)")
_IP_WORDS = re.compile(
    r"//\Z|地址|主机|服务器|网关"
    r"|(?<![a-z])(?:ip|host|server|addr|address|dns|ping|inet|gateway)(?![a-z])",
    re.I,
)
_VERSION_WORDS = re.compile(
    r"(?:(?<![a-z])(?:v|ver|version|build|release|firmware|driver|section|chapter|clause)"
    r"|版本|固件|内核|[章节条§第])[\s.:：]*\Z",
    re.I,
)
_TEN_DIGITS = re.compile(r"[0-9](?:[ ().-]{0,3}[0-9]){9}")
_PART_OF_MORE = re.compile(r"[0-9A-Za-z_.\\=+]\Z|[0-9A-Za-z)][/-]\Z|(?<![0-9])[0-9]{1,3},\Z", re.A)
_GOES_ON = re.compile(r"[0-9A-Za-z_/\\=]|[.:-][0-9]|,[0-9]{3}(?![0-9])")


def _before(match: re.Match[str]) -> str:
    """What stands before the match on its line."""
    text = match.string[max(0, match.start() - _BEFORE) : match.start()]
    return text[text.rfind("\n") + 1 :]


def _stands_alone(match: re.Match[str]) -> bool:
    """Whether it is no part of a longer number, name, path or formula."""
    before = match.string[max(0, match.start() - 5) : match.start()]
    return not _PART_OF_MORE.search(before) and not _GOES_ON.match(match.string, match.end())


def _is_other(match: re.Match[str], words: re.Pattern[str]) -> bool:
    """Whether what stands around it makes it another number than `words` speak of."""
    before = _before(match)
    if words.search(before):
        return False
    return bool(_OTHER_NUMBER.search(before) or _UNIT.match(match.string, match.end()))


@lru_cache(maxsize=1)
def _has_a_number(text: str) -> bool:
    """Whether there is anything for the kinds with ten digits and more, asked once for all of them:
    most texts are done with after this, a tenth of the time that their patterns take."""
    return _TEN_DIGITS.search(text) is not None


def _in_order(spans: list[Span]) -> Iterator[Span]:
    """Spans of several patterns by place; of two that overlap the first."""
    behind = 0
    for span in sorted(spans):
        if span.start >= behind:
            yield span
            behind = span.end


def _digits(text: str) -> str:
    return "".join(re.findall("[0-9]", text))


# E-mail

_LOCAL = re.compile(r"[A-Za-z0-9][A-Za-z0-9._%+-]*\Z")
_DOMAIN = re.compile(r"(?:[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?\.)+([A-Za-z]{2,9})", re.A)
_NO_DOMAIN_BEHIND = re.compile(r"[\w(@-]|\.\w|:[\w.~-]*/", re.A)
"""A call, a longer name, or a path as in `host.com:folder/file`."""
_TOP = re.compile(
    "com|net|org|edu|gov|mil|int|info|biz|name|pro|mobi|asia|app|dev|page|blog|cloud|online|site"
    "|website|store|shop|tech|xyz|top|vip|wang|club|live|life|work|world|email|group|space|fun|ltd"
    "|company|agency|studio|design|media|news|academy|institute|science"
)
"""Beside countries, which have two letters."""
_EXAMPLE = re.compile(r"(?:^|\.)(?:example\.(?:com|org|net)|example|test|invalid|localhost)\Z")
_PROGRAMS = frozenset(("git", "svn", "hg"))
"""Users to whom no mail goes: git@github.com."""


def emails(text: str, private_addresses: bool) -> Iterator[Span]:
    behind, at = 0, text.find("@")
    while at >= 0:
        # The local part has 64 characters at most (RFC 5321); one more tells a longer one.
        local = _LOCAL.search(text, max(behind, at - 65), at)
        domain = _DOMAIN.match(text, at + 1)
        if local and domain:
            behind = domain.end()
            if at - local.start() <= 64 and _is_mail(local.group(), domain):
                yield Span(local.start(), behind, EMAIL)
        at = text.find("@", at + 1)


def _is_mail(local: str, domain: re.Match[str]) -> bool:
    top = domain.group(1)
    known = _TOP.fullmatch(top.lower()) or (len(top) == 2 and (top.islower() or top.isupper()))
    if not known or local in _PROGRAMS or _EXAMPLE.search(domain.group().lower()):
        return False
    return not _NO_DOMAIN_BEHIND.match(domain.string, domain.end())


# IP addresses

# A pattern that begins with one character is searched for ten times as fast as one that does not.
_DOTS = re.compile(r"\.[0-9]{1,3}\.[0-9]{1,3}\.[0-9]")
_COLONS = re.compile(r":[0-9A-Fa-f]{0,4}:[0-9A-Fa-f]{0,4}:")
_QUAD = re.compile(r"[0-9]{1,3}(?:\.[0-9]{1,3}){3}")
_HEXTETS = re.compile(r"[23][0-9A-Fa-f]{3}(?::[0-9A-Fa-f]{0,4}){3,7}")
_QUAD_GOES_ON = re.compile(r"[0-9A-Za-z_]|\.[0-9]|-[A-Za-z]")
_UNROUTED = [
    # The special-purpose registry of IANA (RFC 6890), which Python's own list follows by version.
    ipaddress.IPv4Network(network)
    for network in (
        *("0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16"),
        *("172.16.0.0/12", "192.0.0.0/24", "192.0.2.0/24", "192.168.0.0/16", "198.18.0.0/15"),
        *("198.51.100.0/24", "203.0.113.0/24", "224.0.0.0/4", "240.0.0.0/4"),
    )
]
_DOCUMENTED = [ipaddress.IPv6Network(network) for network in ("2001:db8::/32", "3fff::/20")]


def ip_addresses(text: str, private_addresses: bool) -> Iterator[Span]:
    spans: list[Span] = []
    if _DOTS.search(text):
        for match in _QUAD.finditer(text):
            if _is_ipv4(match, private_addresses):
                spans.append(Span(*match.span(), IPV4))
    if _COLONS.search(text):
        for match in _HEXTETS.finditer(text):
            if _is_ipv6(match, private_addresses):
                spans.append(Span(*match.span(), IPV6))
    yield from _in_order(spans)


def _is_ipv4(match: re.Match[str], private_addresses: bool) -> bool:
    numbers = match.group().split(".")
    if any(int(n) > 255 or (n[0] == "0" and len(n) > 1) for n in numbers) or match.group() == IPV4:
        return False
    before = _before(match)
    # A path goes on behind a slash, the name of a host does not: http://192.0.2.0/index.html
    part_of_more = _PART_OF_MORE.search(before) and not before.endswith(("//", "@"))
    if part_of_more or _QUAD_GOES_ON.match(match.string, match.end()):
        return False
    # Numbers of versions and sections are small; words tell of the rest.
    large = any(int(number) >= 100 for number in numbers)
    if _VERSION_WORDS.search(before) or not (large or _IP_WORDS.search(before)):
        return False
    address = ipaddress.IPv4Address(match.group())
    return private_addresses or not any(address in network for network in _UNROUTED)


def _is_ipv6(match: re.Match[str], private_addresses: bool) -> bool:
    around = match.string[max(0, match.start() - 1) : match.start()]
    around += match.string[match.end() : match.end() + 1]
    if re.search(r"[0-9A-Za-z_:]", around):
        return False
    try:
        address = ipaddress.IPv6Address(match.group())
    except ipaddress.AddressValueError:
        return False
    if match.group() == IPV6:
        return False
    return private_addresses or not any(address in network for network in _DOCUMENTED)


# Identity numbers of the People's Republic: GB 11643-1999

_IDENTITY = re.compile(r"[1-9](?<![0-9A-Za-z].)[0-9]{14}(?:[0-9]{2}[0-9Xx])?(?![0-9A-Za-z])")
_PROVINCE = re.compile("1[1-5]|2[1-3]|3[1-7]|4[1-6]|5[0-4]|6[1-5]|71|8[1-3]")


def identity_numbers(text: str, private_addresses: bool) -> Iterator[Span]:
    for match in _IDENTITY.finditer(text) if _has_a_number(text) else ():
        number = match.group()
        new = len(number) == 18
        born = number[6:14] if new else "19" + number[6:12]
        if not _PROVINCE.match(number) or not _is_date(born):
            continue
        if is_identity_number(number) if new else _IDENTITY_WORDS.search(_before(match)):
            yield Span(*match.span(), IDENTITY)


def is_identity_number(number: str) -> bool:
    """Whether the last of 18 characters is the check digit of the others (ISO 7064, MOD 11-2)."""
    weights = [2**power % 11 for power in range(17, 0, -1)]
    total = sum(int(digit) * weight for digit, weight in zip(number[:17], weights))
    return "10X98765432"[total % 11] == number[17].upper()


def _is_date(digits: str) -> bool:
    try:
        year = datetime.date(int(digits[:4]), int(digits[4:6]), int(digits[6:])).year
    except ValueError:
        return False
    return 1890 <= year < 2100


# Bank cards: ISO/IEC 7812

_CARD = re.compile(
    r"[2-9](?:[0-9]{13,18}"
    r"|[0-9]{3}([ -])[0-9]{4}\1[0-9]{4}\1[0-9]{4}(?:\1[0-9]{3})?"
    r"|[0-9]{3}([ -])[0-9]{6}\2[0-9]{4,5}"
    r"|[0-9]{5} [0-9]{13})(?![0-9])"
)
_ISSUERS = (
    (re.compile(r"62|81"), (16, 17, 18, 19)),  # UnionPay
    (re.compile(r"9558"), (19,)),  # ICBC before UnionPay
    (re.compile(r"4"), (16,)),  # Visa
    (re.compile(r"5[1-5]|222[1-9]|22[3-9]|2[3-6]|27[01]|2720"), (16,)),  # Mastercard
    (re.compile(r"3[47]"), (15,)),  # American Express
    (re.compile(r"30[0-5]|3[689]"), (14,)),  # Diners Club
    (re.compile(r"352[89]|35[3-8]"), (16,)),  # JCB
    (re.compile(r"6011|64[4-9]|65"), (16,)),  # Discover
)
"""How the numbers of an issuer begin, and how long they are."""


def bank_cards(text: str, private_addresses: bool) -> Iterator[Span]:
    for match in _CARD.finditer(text) if _has_a_number(text) else ():
        number = _digits(match.group())
        issued = any(len(number) in lengths and first.match(number) for first, lengths in _ISSUERS)
        if (
            issued
            and is_luhn(number)
            and _stands_alone(match)
            and not _is_other(match, _CARD_WORDS)
        ):
            yield Span(*match.span(), CARD)


def is_luhn(number: str) -> bool:
    """Whether the last digit is the check digit of the others (ISO/IEC 7812-1, annex B)."""
    doubled = [sum(divmod(2 * int(digit), 10)) for digit in number[-2::-2]]
    return (sum(doubled) + sum(map(int, number[-1::-2]))) % 10 == 0


# Phone numbers

_ABROAD = re.compile(r"\+(?<![\])}].)[1-9][0-9]{0,3}(?:[ .-]?(?:\([0-9]{1,4}\)|[0-9]{1,11})){1,5}")
_COUNTRIES = re.compile(
    r"1|7|2(?:[07]|[1346][0-9]|2[0-9]|5[0-8]|9[0179])|3(?:[0-469]|[578][0-9])"
    r"|4(?:[013-9]|2[013])|5(?:[1-8]|[09][0-9])|6(?:[0-6]|[789][0-9])"
    r"|8(?:[1246]|5[02356]|80|86)|9(?:[0-58]|[679][0-9])"
)
"""Codes of countries in ITU-T E.164."""
_MOBILE = re.compile(r"1[3-9][0-9]([ -]?)[0-9]{4}\1[0-9]{4}")
_MOBILE_PREFIX = re.compile(r"13|14[014-9]|15[0-35-9]|16[25-7]|17[0-8]|18|19[0-35-9]")
_LANDLINE = re.compile(
    r"(?:\((0[0-9]{2,3})\) ?|(0[0-9]{2,3})(-|[ ]?))"
    r"[2-8][0-9]{2,3}[ -]?[0-9]{4}(?:-[0-9]{1,5})?(?![0-9])"
)
_AREA = re.compile(r"010|02[0-57-9]|0[3-9][0-9]{2}")
_AMERICAN = re.compile(r"(?:1[-. ])?(?:\([2-9][0-9]{2}\) ?|[2-9][0-9]{2}[-.])[0-9]{3}[-.][0-9]{4}")
_NORTH_AMERICA = re.compile(r"1?(?![2-9]11)[2-9][0-8][0-9](?![2-9]11|55501)[2-9][0-9]{6}")
"""Area and exchange of the North American plan; 555-01.. is kept for fiction."""


def phone_numbers(text: str, private_addresses: bool) -> Iterator[Span]:
    spans: list[Span] = []
    for pattern, check in (
        (_ABROAD, _is_abroad),
        (_MOBILE, _is_mobile),
        (_LANDLINE, _is_landline),
        (_AMERICAN, _is_american),
    ):
        for match in pattern.finditer(text) if _has_a_number(text) else ():
            if check(match) and _stands_alone(match):
                spans.append(Span(*match.span(), PHONE))
    yield from _in_order(spans)


def _is_abroad(match: re.Match[str]) -> bool:
    digits = _digits(match.group())
    if digits[0] == "1":
        return bool(_NORTH_AMERICA.fullmatch(digits))
    country = _COUNTRIES.match(digits)
    # Numbers of a country have at least 7 digits, and with its code 10 (+354, Iceland) to 15.
    if country is None or not 10 <= len(digits) <= 15:
        return False
    return digits[country.end()] != "0" or "(0)" in match.group()


def _is_mobile(match: re.Match[str]) -> bool:
    return bool(_MOBILE_PREFIX.match(match.group())) and not _is_other(match, _PHONE_WORDS)


def _is_landline(match: re.Match[str]) -> bool:
    area = match.group(1) or match.group(2)
    if not _AREA.fullmatch(area):
        return False
    # Without a bracket or hyphen it is a number like any other.
    return match.group(3) in (None, "-") or bool(_PHONE_WORDS.search(_before(match)))


def _is_american(match: re.Match[str]) -> bool:
    number = _digits(match.group())
    return bool(_NORTH_AMERICA.fullmatch(number)) and not _is_other(match, _PHONE_WORDS)


Find = Callable[[str, bool], Iterator[Span]]
"""Spans in order, none over another; the second argument is whether private addresses count."""

KINDS: dict[str, Find] = {
    "email": emails,
    "ip_address": ip_addresses,
    "id_number": identity_numbers,
    "bank_card": bank_cards,
    "phone": phone_numbers,
}
"""In the order in which they are looked for: eighteen digits with a date are no card."""
