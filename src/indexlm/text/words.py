"""Words that tell languages apart, found among the words of a block by their hashes.

Shapes: C characters, W words, S slots.
"""

from functools import cache, lru_cache

import numpy as np
from numpy.typing import NDArray

from indexlm.text.block import Block
from indexlm.text.document import Document

ENGLISH, FOREIGN, KEYWORD, CODE_WORD = 1, 2, 4, 8
"""Bits of a word."""

_ENGLISH_WORDS = """
the of and to in that was he it his is with as for had you not be her on at by which have or from
this him but all she they were are my their so an there if what who been would no when will them me
out up said into more your could about then has some its do any than we now our other such these
only did can like how should over very where those before after most us because through being
between many also same while again against during both each however under without upon until though
"""
# Function words of other languages in Latin script, without those that are English words too.
_FOREIGN_WORDS = """
der und das ist nicht ein eine einen einer dem mit sich auf für von zu zum zur wird werden oder auch
nach bei über wenn kann keine sind aus noch nur durch haben diese dieser wurde
le les des une du et est que qui dans sur avec pas ne ce cette vous être ou aux votre nous peut cela
leur mais été il
el los las del la una por para como más pero sus esta este puede ser está cuando su lo
di che della nel alla gli sono è dei delle questo essere anche più stato
em uma não os dos das são foi pelo pela ao também isso à
het een niet dat zijn voor te wordt naar bij ook deze worden geen moet uit
och att det som är inte på av till för ett med eller från ikke og er af fra blir
nie się na jest że w z dla jako lub przez nebo není je pro která ktorý sú jsou tento při ili nije
koji za se od ni pri ki da ir ar uz yra kad nav
ja ei että ole tai sen kun ovat voi ning või kui
hogy nem egy az és vagy nincs lehet csak și nu pentru sau cu fost să în
ve bir için ile değil olarak veya yang di dengan untuk dari ini itu tidak pada adalah dapat atau
và của là không được các một để với tập lỗi
quod ut sed cum quae enim esse agus ní bhfuil estas kaj ne por al els amb és aquest dels
shi bu wo ni ta zai zhe ge yi xiang jiu zhong guo hao
"""
# Words that begin lines of code: those that begin sentences too, and those that do not.
_KEYWORDS = """
class from return if else for while try except with assert yield print await public private static
final void float double long short let use union package type interface switch case break continue
default template using select insert update create where join alter drop order group into values
export done then do local cd module require throw throws catch finally new delete self this null
none true false match defer go map range begin end declare set unset exit read source table link
style script head body html
"""
_CODE_WORDS = """
import def elif lambda raise async protected int char bool boolean unsigned const var function func
fn pub impl struct enum typename namespace typedef extern inline include define ifdef ifndef endif
undef pragma echo fi esac sudo mkdir mod crate chan div span href li ul td tr meta
"""

_SLOT_BITS = 15

Flags = NDArray[np.uint8]


@lru_cache(maxsize=1)
def word_flags(block: Block) -> Flags:
    """[C] bits of the word that begins at a character, 0 for any other. ENGLISH and FOREIGN mark
    function words, CODE_WORD those keywords that no English sentence begins with."""
    starts_W, ends_W = block.words_2W
    hashes_W = block.hashes(starts_W, ends_W)
    salt, hashes_S, flags_S = _word_table()
    slots_W = ((hashes_W * salt) >> np.uint64(64 - _SLOT_BITS)).astype(np.int64)
    flags_C = np.zeros(len(block.codes_C), dtype=np.uint8)
    flags_C[starts_W] = flags_S[slots_W] * (hashes_S[slots_W] == hashes_W)
    return flags_C


@cache
def _word_table() -> tuple[np.uint64, NDArray[np.uint64], Flags]:
    """A salt, and by slot the hash of the word that falls there and its bits.

    The salt is the first that gives each word a slot of its own.
    """
    bits: dict[str, int] = {}
    for words, bit in (
        (_ENGLISH_WORDS, ENGLISH),
        (_KEYWORDS, KEYWORD),
        (_CODE_WORDS, KEYWORD | CODE_WORD),
    ):
        bits |= {word: bits.get(word, 0) | bit for word in words.split()}
    bits |= {word: FOREIGN for word in _FOREIGN_WORDS.split() if word not in bits}
    block = Block([Document("", " ".join(bits), "", "en", "")])
    hashes_W = block.hashes(*block.words_2W)
    assert len(hashes_W) == len(bits)
    shift = np.uint64(64 - _SLOT_BITS)
    salt = next(
        salt
        for salt in map(np.uint64, range(1, 2**20, 2))
        if len(np.unique((hashes_W * salt) >> shift)) == len(bits)
    )
    hashes_S = np.zeros(1 << _SLOT_BITS, dtype=np.uint64)
    flags_S = np.zeros(1 << _SLOT_BITS, dtype=np.uint8)
    slots_W = (hashes_W * salt) >> shift
    hashes_S[slots_W], flags_S[slots_W] = hashes_W, list(bits.values())
    return salt, hashes_S, flags_S
