"""The embedded corpus: verse in the form of a play, from a seeded grammar.

A play is a run of scenes; a scene has a place, a cast of two to four and a topic. The cast speak
in turns: an ASK and its ANSWER share a THEME, and some answers close on a couplet that rhymes.

The grammar is context-free. A rule names its symbols in capitals, parts alternatives by `|` and
lines of verse by `/`; in a word list each word is an alternative. Earlier ones are likelier (see
`draw`). Five symbols depend on the scene: NOUN, in the order of its topics, begins at another word
in each; THEME is a noun for two speeches; FRIEND is whoever spoke last; RHYME and ECHO rhyme.
"""

import re
from collections.abc import Callable, Iterator
from random import Random
from typing import TypeVar

Item = TypeVar("Item")
Chance = Callable[[], float]  # uniform on [0, 1)
Rule = tuple[str, list[str]]  # a %-template and the symbols that fill it
Grammar = dict[str, list[Rule]]

EVENTS = 0.1  # per exchange

PHRASES = {
    "SETTING": "Scene. NEAR the ADJ NOUN.",
    "EVENT": "Enter a ADJ NOUN. | they MOVE PLACE. | Music. | a NOUN MOVEs PLACE. | Exit a NOUN.",
    "ASK": """SAYING / QUESTION | QUESTION | SAYING / SAYING / QUESTION | OUTCRY / QUESTION
        | OUTCRY / SAYING / QUESTION""",
    "ANSWER": """REPLY / SAYING | REPLY / SAYING / COUPLET | REPLY / SAYING / SAYING | REPLY
        | REPLY / COMMAND | REPLY / COMMAND / COUPLET | REPLY / SAYING / SAYING / COUPLET""",
    "QUESTION": """why does the THEME ACT? | who will VERB the THEME, FRIEND?
        | what NOUN VERBs the THEME / when MANY ARE? | shall I VERB the THEME, / or MOVE PLACE?
        | do you THINK that the THEME IS? | where is the THEME, FRIEND?
        | how long must the THEME MOVE PLACE? | is there no ADJ THEME PLACE?
        | who KEPT the THEME, FRIEND, / if not ONE?""",
    "REPLY": """the THEME IS, / and CLAUSE. | ay, FRIEND: the THEME IS. | nay, FRIEND: the THEME IS.
        | I THINK that the THEME IS. | the THEME? it MOVEs PLACE. | 'tis but a THEME, good FRIEND.
        | your THEME IS, / and mine IS. | a ADJ THEME, FRIEND! / it IS. | no THEME VERBs me now.
        | I'll VERB the THEME, FRIEND, / and VERB ONE.""",
    "SAYING": """CLAUSE, / and CLAUSE. | CLAUSE. | CLAUSE; / CLAUSE. | when CLAUSE, / CLAUSE.
        | CLAUSE, / for CLAUSE, / and CLAUSE. | if CLAUSE, / then CLAUSE.
        | though CLAUSE, / yet CLAUSE. | I THINK that CLAUSE: / CLAUSE.
        | LIKE, / CLAUSE. | there is GRIEF PLACE; / CLAUSE.""",
    "COMMAND": """come, FRIEND, VERB the THEME. | go, VERB ONE, / and MOVE PLACE.
        | let ONE ACT, / and let us ACT. | speak no more of THEMEs, FRIEND: / CLAUSE.""",
    "OUTCRY": """O ADJ THEME! | alas, the ADJ THEME! | hush! CLAUSE. | welcome, good FRIEND!
        | how ADJ is the THEME, / and how ADJ your NOUN!""",
    "COUPLET": """so let ONE MOVE PREP the ADJ RHYME, / and let MANY MOVE PREP the ECHO.
        | I'll VERB ONE PREP the RHYME, / and VERB ONE PREP the ADJ ECHO.
        | whoever VERBs the ADJ RHYME / must VERB the NOUN that VERBs the ECHO.
        | and ONE MUST VERB the RHYME, / till MANY MOVE PREP the ECHO.""",
    "RHYMES": """night light sight flight knight | sea tree bee key plea | day way bay clay play
        | stone bone throne | rain chain lane grain | ring king spring string
        | moon tune noon spoon | wall hall fall squall | bell well shell spell | flame name game
        | dawn lawn fawn | crown town gown | hill mill quill | air chair stair hare
        | fire choir lyre | breeze freeze | fox box | maze blaze gaze phrase | sword lord board
        | jewel duel""",
    "CLAUSE": """ONE IS | MANY ARE | I AM | the NOUN PREP the NOUN IS | NAME IS | GRIEF IS | we ARE
        | you ARE | MANY of GRIEF ARE | my GRIEF IS""",
    "IS": """VERBs ONE | MOVEs PLACE | KEPT ONE | MUST ACT | VERBs MANY | has KEPT ONE | MOVEs HOW
        | is LIKE | is KEPT PLACE""",
    "ARE": "ACT | KEPT ONE | MUST ACT | have KEPT ONE | are LIKE | are KEPT PLACE",
    "AM": "ACT | KEPT ONE | MUST ACT | have KEPT ONE | am LIKE | never VERB ONE",
    "ACT": "VERB ONE | MOVE PLACE | VERB MANY | VERB ONE with GRIEF | MOVE HOW",
    "LIKE": "as ADJ as ONE | less ADJ than ONE",
    "ONE": "THE ADJ NOUN | THE NOUN | NAME's NOUN | THE NOUN of GRIEF | THE NOUN-NOUN",
    "MANY": "THESE NOUNs | ADJ NOUNs | THESE ADJ NOUNs",
    "PLACE": "PREP the NOUN | PREP ONE | PREP MANY",
    "HOW": "softly | again | alone | tonight | at dawn | in vain | gladly | too late | by night",
}

WORDS = {
    "NOUN": """
        ship sail tide wave gull harbour anchor oar sailor shore pearl whale island captain net
        apple orchard bough blossom plum bee hive ladder basket seed hazel quince pear vine
        mill miller wheel stone sack crumb oven baker crust grain sieve table
        queen king crown throne page herald jewel banner prince duke palace jester
        star moon lantern candle owl shadow dream window bat midnight comet planet
        soldier sword drum spear shield tower wall gate arrow trumpet horse rider
        smith hammer anvil nail spark blade forge chain bolt axle hook furnace
        song bell fiddle lute string piper drummer tune viol chorister singer whisper
        judge quarrel verdict oath pledge robber prison lawyer juror question answer pardon
        cloud wind tempest breeze blizzard rainbow frost thaw zephyr shower gale flood
        oak fern stag raven squirrel hunter thicket trail acorn badger hound horn
        river bridge boat heron eel ford reed raft frog fisher bank pool willow
        coin purse merchant ribbon bargain quilt button market needle tailor thread velvet
        kettle spoon cook pot onion pepper dumpling feast goblet jug pickle dinner
        heart lover letter ring vow promise glove suitor rival keepsake wedding token
        door hearth roof chimney stair key cradle chair mirror cellar curtain lodger
        book quill riddle scholar poet verse word tale pupil lesson puzzle margin
        rose thorn violet nettle gardener hedge spade bud beetle lizard arbour jasmine
        plough field goat hen barn farmer cart mare colt lamb shepherd furrow
        grave ghost bone sexton tomb skull worm shroud widow heir mourner vault
        year winter summer morning evening season clock minute calendar dawn birthday moment
        road mile inn stranger beggar pilgrim cloak staff boot journey exile signpost
        mask player puppet riddler juggler mummer ballad gesture costume mimic prologue pageant""",
    "GRIEF": """sorrow hope mercy silence love joy grief patience courage wisdom envy justice zeal
        laughter honey thunder music kindness fortune quiet malice pride hunger amazement honour
        moonlight slumber gold wonder danger virtue dust sunshine gratitude vinegar anger""",
    "ADJ": """old little bright cold sweet poor gentle dark silver proud quiet broken golden weary
        lowly foolish hollow pale merry wild brave empty patient crooked lonely green early secret
        bitter humble idle jealous heavy wise savage drowsy frozen tender faithful northern velvet
        solemn ancient restless cunning shining scarlet noble dusty sleepless narrow stubborn
        careless zealous hungry vexed modest crimson nimble dreadful azure thankful exiled curious
        learned upright thirsty sudden hopeful dismal gaudy plain swift homely marble stately waxen
        sullen joyful dizzy perfect fickle lazy antique questing jolly wanton sober grizzled
        matchless rusty eager oaken tranquil gallant ruined blushing unlucky mighty costly
        speechless barren haughty royal famous rugged""",
    "VERB": """keep love follow hold fear find call bring hide know seek mend praise guard break
        forget steal remember bear greet want serve wake lend betray mock question forgive measure
        answer honour deceive pursue admire adorn outlive judge adjure need welcome escape befriend
        hinder shelter admit regard abandon excuse paint invite provoke visit gather comfort""",
    "MOVE": """sleep wait sing walk fall rise come turn weep burn dance wander tremble linger dream
        kneel shine laugh drift quarrel gaze stumble flow blossom whisper return""",
    "KEPT": """kept found lost loved heard sold left mended followed praised buried crowned held
        sought brought seized vexed judged examined bound mourned hailed taught bought""",
    "THINK": "know think fear swear hope say dream believe guess judge",
    "MUST": "will must may shall cannot would should might could",
    "PREP": "by under with beyond upon near behind before above o'er beneath without",
    "NEAR": "before beside behind near beyond under within above",
    "THE": "the my a your this every that our",
    "THESE": "the our all your these those two seven many few",
    "NAME": """Vesper Quillon Fenwick Maud Jessamy Corvin Xanthe Lorimer Doria Hob Zelda Ambrose
        Kestrel Brindle Yolande Ulric Tamsin Gisla Peregrine Nicanor Wystan Elowen Rosamund Odo
        Silvan Ingram""",
}


def parse(text: str) -> Rule:
    """Turn `the ADJ NOUN` into `the %s %s` and its symbols, `/` into a new line."""
    line = " ".join(text.split()).replace(" / ", "\n")
    return re.sub("[A-Z]{2,}", "%s", line), re.findall("[A-Z]{2,}", line)


GRAMMAR: Grammar = {
    symbol: [parse(rule) for rule in text.split("|" if symbol in PHRASES else None)]
    for symbol, text in (PHRASES | WORDS).items()
}


def draw(count: int, chance: Chance) -> int:
    """Draw an index below `count`; the first quarter of them takes half of the draws."""
    u = chance()
    return int(count * u * u)  # a product, not a power: those may round by platform


def deal(deck: list[Item], count: int, chance: Chance) -> list[Item]:
    """Draw `count` items out of a deck, which loses them."""
    return [deck.pop(draw(len(deck), chance)) for _ in range(count)]


def expand_symbol(symbol: str, grammar: Grammar, chance: Chance) -> str:
    """Expand a symbol into text by drawn rules, all the way down to words."""
    rules = grammar[symbol]
    template, symbols = rules[draw(len(rules), chance)]
    if not symbols:
        return template
    return template % tuple([expand_symbol(inner, grammar, chance) for inner in symbols])


def exchange(cast: list[str], grammar: Grammar, chance: Chance) -> Iterator[str]:
    """Yield a question and its answer; each speaker moves to the front of the cast."""
    nouns = list(grammar["NOUN"])
    theme = deal(nouns, 1, chance)
    for speech in ("ASK", "ANSWER"):
        speaker = cast.pop(1 + draw(len(cast) - 1, chance))
        cast.insert(0, speaker)
        rhyme, echo = deal(expand_symbol("RHYMES", grammar, chance).split(), 2, chance)
        bound = {"FRIEND": cast[1], "RHYME": rhyme, "ECHO": echo}
        words = {symbol: [parse(word)] for symbol, word in bound.items()}
        text = expand_symbol(speech, grammar | words | {"NOUN": nouns, "THEME": theme}, chance)
        yield f"{speaker.upper()}:\n{text}"


def scene(chance: Chance) -> Iterator[str]:
    """Yield the paragraphs of a scene: its setting, its speeches, now and then an event."""
    cast = deal(WORDS["NAME"].split(), 2 + draw(3, chance), chance)
    nouns = GRAMMAR["NOUN"]
    topic = int(len(nouns) * chance())
    grammar = GRAMMAR | {"NOUN": nouns[topic:] + nouns[:topic]}
    setting = expand_symbol("SETTING", grammar, chance)
    yield f"{setting}\nEnter {', '.join(cast[:-1])} and {cast[-1]}."
    for _ in range(4 + draw(12, chance)):
        yield from exchange(cast, grammar, chance)
        if chance() < EVENTS:
            yield expand_symbol("EVENT", grammar, chance)
    yield "Exeunt."


def typeset(text: str) -> str:
    """Put `an` before a vowel, and a capital where a line or a sentence starts."""
    text = re.sub(r"\ba (?=[aeiou])", "an ", text)
    return re.sub(r"(?m)(?:^|[.!?] )'?[a-z]", lambda start: start[0].upper(), text)


def write_play(seed: int = 1337, characters: int = 1_115_000) -> str:
    """Write a play of exactly `characters` characters, the last of them a newline.

    The text depends on the arguments alone, and not on the platform or the version of Python: all
    chance comes from `Random(seed).random()`, a sequence that Python promises to keep. A shorter
    play is the beginning of a longer one, with its last line cut to length.

    Args:
        seed: of the play, from 0 on.
        characters: its length, also in bytes: the text is ASCII.

    Raises:
        ValueError: `characters` is below 1.
    """
    if characters < 1:
        raise ValueError(f"a play has at least 1 character, not {characters}")
    chance = Random(seed).random
    scenes: list[str] = []
    while sum(map(len, scenes)) < characters:
        scenes.append(typeset("\n\n".join(scene(chance)) + "\n\n"))
    return "".join(scenes)[: characters - 1] + "\n"
