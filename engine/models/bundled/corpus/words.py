"""Word lists and made-up words that fill the templates."""

from __future__ import annotations

from engine.models.bundled.corpus.source import Source, terms

NAMES = terms("""
    Alice Bob Carol David Emma Frank Grace Henry Isabel Jack Karen Leo Maria Nora Oscar Paul
    Rosa Sam Tina Victor Wendy Anna Ben Clara Daniel Eva Felix Gina Hugo Ivan Julia Kevin
    Laura Mark Nina Peter Robert Sara Tom Vera Will Adam Bella Chris Diana Eric Fiona George
    Helen Igor James Kate Linda Mike Nick Olga Quinn Rita Steve Theo Yara Zoe Amir Bea Carlos
    Chen Fatima Goran Hana Jose Kofi Lars Mei Nadia Omar Pablo Ravi Sofia Tariq Uma Yuki Zara
    John Mary Lucas Mia Noah Liam Olivia Ethan Sophie Max Luna Ruth Simon Dora Elias Freya
    Gustav Heidi Ingrid Jonas
""")
HELDOUT_NAMES = terms("""
    Ada Linus Marie Bruno Priya Otto Elena Kenji Stella Malik Greta Pedro Ines Arthur Zelda
    Dmitri Naomi Rahul Tessa Viktor
""")

WORDS = terms("""
    apple bread chair table house river mountain garden window door kitchen flower tree book
    paper pencil school teacher student music song dance bottle glass cup plate spoon fork
    knife water milk coffee tea sugar salt pepper cheese butter tomato potato carrot onion
    banana lemon cherry grape peach melon berry lion tiger bear wolf fox rabbit mouse horse
    cow sheep goat pig duck goose chicken eagle owl crow snake frog fish whale shark crab
    spider ant bee fly train plane car bus boat ship bike truck road street bridge tower
    castle church market shop store hotel office bank park beach island desert forest jungle
    lake ocean sea cloud rain snow wind storm thunder summer winter spring autumn morning
    evening night week month year clock watch phone computer screen keyboard radio camera
    picture paint color red blue green yellow orange purple black white brown pink gold silver
    iron wood stone sand glue rope box bag basket bucket hammer nail ladder shirt jacket coat
    hat shoe sock glove belt dress ring crown king queen prince knight dragon wizard witch
    ghost robot doctor nurse farmer baker pilot sailor soldier artist writer singer player
    actor lawyer judge friend brother sister mother father uncle aunt cousin baby child hand
    foot arm leg head eye ear nose mouth tooth hair heart bone skin happy sad angry tired
    hungry thirsty brave clever quick slow strong weak small large tall short long old new
    young fresh clean dirty empty full heavy light dark bright warm cold dry wet loud quiet
    soft hard sweet sour bitter run walk jump swim climb sleep dream think speak listen read
    write draw build break carry push pull open close start stop begin finish help learn teach
    cook eat drink wash travel visit dog cat sun moon star planet earth world time day game
    story letter number question answer money ticket
""")
HELDOUT_WORDS = terms("""
    guitar violin pillow candle rocket pirate turtle monkey zebra camel tulip button mirror
    engine magnet soccer tennis circle square temple wagon kettle blanket puzzle lizard salmon
    copper velvet harbor comet cactus saddle lantern parrot stamp brick plum frost globe
    spice
""")
PLAIN_NOUNS = terms("""
    project ticket order invoice server report room file user account device photo meeting
    recipe message parcel camera package contract printer lamp task playlist library shipment
    budget student car garden robot door sensor route product song vehicle patient document
""")
COLOUR_NAMES = ("red", "blue", "green", "yellow", "purple", "orange", "pink", "black", "white",
                "silver", "gold", "brown", "turquoise", "violet")  # fmt: skip
CITIES = terms("""
    Paris London Rome Berlin Madrid Tokyo Oslo Vienna Dublin Prague Lisbon Athens Cairo Lima
    Boston Chicago Denver Seattle Austin Toronto Sydney Mumbai Delhi Seoul Milan Naples
    Hamburg Munich Porto Lyon Geneva Zurich Dallas Miami Houston Phoenix Bristol Leeds Glasgow
    Osaka Kyoto Shanghai Manila Nairobi Lagos Accra Tunis Havana Quito Warsaw Riga
""")
HELDOUT_CITIES = terms("Bergen Marseille Valencia Krakow Portland Dubai Graz Izmir Hanoi Perth")
ADJECTIVES = terms("""
    helpful friendly grumpy wise cheerful patient clever funny polite brave sleepy curious
    kind strict gentle proud quiet lazy famous old young retired happy shy serious
""")
JOBS = terms("""
    pirate librarian teacher doctor chef gardener astronaut detective knight wizard robot
    farmer nurse pilot sailor poet painter singer lawyer plumber carpenter baker scientist
    coach historian mechanic tailor fisherman explorer king queen dragon cowboy butler barber
    guide monk translator journalist banker clown butcher
""")
HELDOUT_JOBS = terms("""
    pirate librarian chef astronaut wizard gardener dentist shepherd magician blacksmith
    waiter engineer
""")
PETS = ("dog", "cat", "hamster", "parrot", "rabbit", "horse", "goldfish", "turtle")
FOODS = ("pizza", "sushi", "pasta", "soup", "bread", "cheese", "rice", "curry", "salad", "cake",
         "tacos", "pancakes", "noodles", "fish", "chocolate", "apples")  # fmt: skip

# Latin with accents, Greek, Cyrillic, Chinese, Hiragana, emoji, and plain letters.
_RANGES = ((0xC0, 0x17F), (0x391, 0x3C9), (0x410, 0x44F), (0x4E00, 0x9FA5), (0x3041, 0x3096),
           (0x1F600, 0x1F64F), (0x61, 0x7B))  # fmt: skip
_ONSETS = terms("""
    b c d f g h j k l m n p r s t v w z br ch cl cr dr fl fr gl gr pl pr sh sl sp st th tr qu
    sk sn sw wh
""")
_VOWELS = terms("a e i o u a e i o ai ea ee oo ou ie y")
_CODAS = terms("n r s t l m d ck ll ng nt rd st x p b g sh th ss ne le ry er or")


def made_up(source: Source, syllables: int) -> str:
    """A pronounceable word that means nothing, lower case. It forces copying over recall."""
    parts: list[str] = []
    for index in range(syllables):
        parts.append(source.pick(_ONSETS) if index or source.chance(0.85) else "")
        parts.append(source.pick(_VOWELS))
        if source.chance(0.35) or (index == syllables - 1 and source.chance(0.4)):
            parts.append(source.pick(_CODAS))
    return "".join(parts)


def name(source: Source) -> str:
    """A first name, in training half the time a made-up one."""
    if source.heldout:
        return source.pick(HELDOUT_NAMES)
    if source.chance(0.5):
        return source.pick(NAMES)
    return made_up(source, 1 + int(source.rng.random() * 3)).capitalize()


def word(source: Source) -> str:
    """A common lower-case word, in training half the time a made-up one."""
    if source.heldout:
        return source.pick(HELDOUT_WORDS)
    if source.chance(0.5):
        return source.pick(WORDS)
    return made_up(source, 1 + int(source.rng.random() * 2))


def city(source: Source) -> str:
    """A city name, in training sometimes a made-up one."""
    if source.heldout:
        return source.pick(HELDOUT_CITIES)
    if source.chance(0.6):
        return source.pick(CITIES)
    return made_up(source, 2).capitalize()


def role(source: Source) -> str:
    """A role with its article: 'a helpful librarian'."""
    job = source.split(JOBS, HELDOUT_JOBS)
    if not source.heldout and source.chance(0.15):
        job = made_up(source, 2)
    text = f"{source.pick(ADJECTIVES)} {job}" if source.chance(0.6) else job
    return f"{'an' if text[0] in 'aeiou' else 'a'} {text}"


def code(source: Source) -> str:
    """An identifier such as 'AB-1234', '83112' or 'x7k2'."""
    digits = "".join(source.pick("0123456789") for _ in range(2 + int(source.rng.random() * 4)))
    letters = "".join(source.pick("ABCDEFGHJKLMNPQRSTUVWXYZ") for _ in range(2))
    form = source.pick(("{d}", "{l}-{d}", "{l}{d}", "{d}{l}"))
    return form.replace("{d}", digits).replace("{l}", letters)


def foreign(source: Source) -> str:
    """A short string of unusual characters, so that byte tokens are trained to be copied."""
    chosen = [source.pick(_RANGES) for _ in range(2 + int(source.rng.random() * 3))]
    return "".join(chr(start + int(source.rng.random() * (stop - start)))
                   for start, stop in chosen)  # fmt: skip
