"""The world of Tiger-Nano: every fact it can know, with the ways to ask for it.

Job: list the topics, their facts, question templates and follow-up templates.
Does not know: styles, system prompts, conversations, tokens or training.

Every answer is one word without spaces. This keeps two promises cheap: the
"one word" style can always be obeyed, and "is it right?" is a search for that
word in the answer.
"""

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Fact:
    topic: str
    key: str  # unique inside the topic; used to hold out combinations
    slots: tuple  # (name, value) pairs that fill the templates
    answer: str  # one word
    statement: str  # mid-sentence form without a full stop
    about: str  # noun phrase for "you asked about ..."
    entity: str = ""  # what "it" means in a follow-up ("France", "dog", "7")
    # Small talk does not fit the general phrasing; it brings its own wording:
    # a tuple of (style, (variant, ...)) pairs.
    own: tuple = ()

    def fill(self, template: str) -> str:
        text = template.format(**dict(self.slots))
        return text[0].upper() + text[1:]


@dataclass
class Topic:
    name: str
    weight: float  # share of the corpus, relative
    facts: list
    asks: list  # templates seen in training
    held_asks: list  # templates never seen in training
    follow: str = ""  # elliptic phrase: "And {follow}?" asks the same of another key
    by_key: dict = field(default_factory=dict)

    def __post_init__(self):
        self.by_key = {f.key: f for f in self.facts}
        assert len(self.by_key) == len(self.facts), self.name
        for f in self.facts:
            assert " " not in f.answer, f


def article(noun: str) -> str:
    return ("an " if noun[0] in "aeiou" else "a ") + noun


def pairs(text: str) -> list:
    return [tuple(item.split(":")) for item in text.split()]


# --- places -----------------------------------------------------------------

CAPITALS = pairs(
    "France:Paris Spain:Madrid Italy:Rome Germany:Berlin Portugal:Lisbon Austria:Vienna "
    "Poland:Warsaw Greece:Athens Norway:Oslo Sweden:Stockholm Finland:Helsinki Denmark:Copenhagen "
    "Ireland:Dublin England:London Hungary:Budapest Belgium:Brussels Russia:Moscow Turkey:Ankara "
    "Egypt:Cairo Kenya:Nairobi Morocco:Rabat Ghana:Accra Nigeria:Abuja Japan:Tokyo China:Beijing "
    "Thailand:Bangkok Vietnam:Hanoi Nepal:Kathmandu Iran:Tehran Iraq:Baghdad Canada:Ottawa "
    "Cuba:Havana Peru:Lima Chile:Santiago Brazil:Brasilia Colombia:Bogota Ecuador:Quito "
    "Australia:Canberra Iceland:Reykjavik Switzerland:Bern Ukraine:Kyiv Romania:Bucharest "
    "Bulgaria:Sofia Croatia:Zagreb Scotland:Edinburgh Wales:Cardiff Jordan:Amman Jamaica:Kingston "
    "Tunisia:Tunis Senegal:Dakar"
)
# Countries on two continents, and continents with two words, are left out.
CONTINENTS = {}
for _continent, _countries in {
    "Europe": "France Spain Italy Germany Portugal Austria Poland Greece Norway Sweden Finland Denmark "
    "Ireland England Hungary Belgium Iceland Switzerland Ukraine Romania Bulgaria Croatia Scotland Wales",
    "Africa": "Egypt Kenya Morocco Ghana Nigeria Tunisia Senegal",
    "Asia": "Japan China Thailand Vietnam Nepal Iran Iraq Jordan",
}.items():
    for _country in _countries.split():
        CONTINENTS[_country] = _continent


def place_topics():
    capital = Topic(
        "capital", 5,
        [Fact("capital", c, (("x", c),), k, f"the capital of {c} is {k}", f"the capital of {c}", c)
         for c, k in CAPITALS],
        ["what is the capital of {x}?", "which city is the capital of {x}?", "name the capital of {x}.",
         "tell me the capital of {x}.", "what is {x}'s capital?", "do you know the capital of {x}?",
         "what is the capital city of {x}?", "{x}: what is its capital?", "can you tell me the capital of {x}?",
         "I need the capital of {x}.", "what's the capital of {x}?", "give me {x}'s capital city."],
        ["please name the capital city of {x}.", "which city is {x}'s capital?", "could you tell me the capital city of {x}?"],
        "{x}",
    )
    country = Topic(
        "country", 4,
        [Fact("country", k, (("x", k),), c, f"{k} is the capital of {c}", f"the city of {k}", c)
         for c, k in CAPITALS],
        ["{x} is the capital of which country?", "which country has {x} as its capital?",
         "of which country is {x} the capital?", "name the country whose capital is {x}.",
         "in which country is {x}?", "what country is {x} in?", "where is {x}?", "tell me the country of {x}.",
         "which country does {x} belong to?"],
        ["tell me which country has {x} as its capital.", "what country has {x} as its capital?"],
        "{x}",
    )
    continent = Topic(
        "continent", 2,
        [Fact("continent", c, (("x", c),), k, f"{c} is in {k}", f"the continent of {c}", c)
         for c, k in CONTINENTS.items()],
        ["on which continent is {x}?", "which continent is {x} on?", "what continent is {x} in?",
         "name the continent of {x}.", "tell me the continent of {x}.", "what is the continent of {x}?",
         "to which continent does {x} belong?", "in what part of the world is {x}?"],
        ["can you name the continent of {x}?", "tell me which continent {x} is on."],
        "{x}",
    )
    return [capital, country, continent]


# --- colours ----------------------------------------------------------------

COLOURS = [tuple(item.split(":")) for item in (
    "the sky:blue,grass:green,snow:white,coal:black,a lemon:yellow,a banana:yellow,a carrot:orange,"
    "blood:red,the sun:yellow,milk:white,chocolate:brown,a tomato:red,a strawberry:red,a flamingo:pink,"
    "the sea:blue,a frog:green,a raven:black,a polar bear:white,a cucumber:green,an elephant:grey,"
    "a pumpkin:orange,a pea:green,a swan:white,a cherry:red,a plum:purple,a lime:green,sand:yellow,"
    "soil:brown,ash:grey,a pig:pink,a fire engine:red,salt:white,a spinach leaf:green,an eggplant:purple,"
    "a chick:yellow,ink:black,a walnut:brown,a dolphin:grey,lavender:purple,salmon:pink").split(",")]
MIXES = [tuple(item.split()) for item in (
    "blue yellow green,red yellow orange,red blue purple,red white pink,black white grey,red green brown").split(",")]


def colour_topics():
    colour = Topic(
        "colour", 4,
        [Fact("colour", x, (("x", x),), c, f"{x} is {c}", f"the colour of {x}") for x, c in COLOURS],
        ["what colour is {x}?", "what color is {x}?", "which colour is {x}?", "tell me the colour of {x}.",
         "what is the colour of {x}?", "name the colour of {x}.", "what colour does {x} have?",
         "do you know the colour of {x}?", "{x} is what colour?", "what is the color of {x}?",
         "can you tell me the colour of {x}?"],
        ["please tell me what colour {x} is.", "which colour does {x} have?"],
        "{x}",
    )
    mix = Topic(
        "mix", 1.5,
        [Fact("mix", f"{a} {b}", (("a", a), ("b", b)), c, f"{a} and {b} make {c}", f"mixing {a} and {b}")
         for x, y, c in MIXES for a, b in ((x, y), (y, x))],
        ["what do {a} and {b} make?", "what colour do {a} and {b} make?", "mix {a} and {b}. What do you get?",
         "what do you get from {a} and {b}?", "which colour comes from {a} and {b}?",
         "if I mix {a} with {b}, what colour is it?", "{a} and {b} together make which colour?"],
        ["what colour do I get if I mix {a} and {b}?", "tell me what {a} and {b} make."],
        "{a} and {b}",
    )
    return [colour, mix]


# --- animals and kinds ------------------------------------------------------

LEGS = pairs(
    "dog:4 cat:4 horse:4 cow:4 sheep:4 pig:4 lion:4 tiger:4 goat:4 bear:4 wolf:4 fox:4 mouse:4 rabbit:4 frog:4 "
    "elephant:4 duck:2 chicken:2 hen:2 owl:2 penguin:2 goose:2 swan:2 ant:6 bee:6 fly:6 beetle:6 butterfly:6 "
    "spider:8 scorpion:8 snake:0 worm:0 fish:0 whale:0")
SOUNDS = pairs(
    "dog:woof cat:meow cow:moo sheep:baa pig:oink duck:quack horse:neigh lion:roar mouse:squeak bee:buzz "
    "owl:hoot snake:hiss frog:croak chicken:cluck crow:caw wolf:howl goose:honk bird:tweet")
YOUNG = pairs(
    "dog:puppy cat:kitten cow:calf sheep:lamb pig:piglet duck:duckling horse:foal lion:cub goat:kid bear:cub "
    "frog:tadpole chicken:chick deer:fawn kangaroo:joey swan:cygnet goose:gosling fox:cub owl:owlet "
    "elephant:calf wolf:cub")
KINDS = {
    "animal": "dog cat horse cow sheep pig lion tiger bear wolf fox mouse rabbit elephant",
    "bird": "duck owl penguin swan crow sparrow eagle robin",
    "insect": "ant bee fly beetle butterfly",
    "fish": "trout shark tuna herring",
    "fruit": "apple banana cherry pear grape mango peach plum",
    "vegetable": "carrot potato onion cabbage leek turnip",
    "flower": "rose tulip daisy lily",
    "tree": "oak pine birch maple",
    "tool": "hammer saw drill spade wrench",
    "vehicle": "car bus train bicycle truck",
    "instrument": "piano violin guitar flute drum trumpet",
    "drink": "tea coffee lemonade",
    "garment": "shirt jacket sock skirt coat",
}


def animal_topics():
    legs = Topic(
        "legs", 3,
        [Fact("legs", x, (("x", article(x)),), n, f"{article(x)} has {n} legs", f"the legs of {article(x)}", x)
         for x, n in LEGS],
        ["how many legs does {x} have?", "how many legs has {x}?", "count the legs of {x}.",
         "tell me how many legs {x} has.", "what is the number of legs of {x}?", "{x} has how many legs?",
         "do you know how many legs {x} has?", "on how many legs does {x} walk?"],
        ["what number of legs does {x} have?", "can you tell me how many legs {x} has?"],
        "{x}",
    )
    sound = Topic(
        "sound", 2.5,
        [Fact("sound", x, (("x", article(x)),), s, f"{article(x)} says {s}", f"the sound of {article(x)}", x)
         for x, s in SOUNDS],
        ["what does {x} say?", "what sound does {x} make?", "which sound does {x} make?",
         "tell me the sound of {x}.", "what is the sound of {x}?", "how does {x} sound?",
         "what noise does {x} make?", "do you know the sound of {x}?"],
        ["can you tell me what sound {x} makes?", "which noise does {x} make?"],
        "{x}",
    )
    young = Topic(
        "young", 2.5,
        [Fact("young", x, (("x", x), ("ax", article(x))), y, f"a baby {x} is {article(y)}", f"the baby of {article(x)}", x)
         for x, y in YOUNG],
        ["what is a baby {x} called?", "what do you call a baby {x}?", "what is the young of {ax}?",
         "name the baby of {ax}.", "what is the word for a baby {x}?", "how do you call a young {x}?",
         "tell me what a baby {x} is called.", "what is the baby of {ax} called?"],
        ["do you know what a baby {x} is called?", "give me the word for a young {x}."],
        "{ax}",
    )
    kind = Topic(
        "kind", 4,
        [Fact("kind", x, (("x", article(x)),), k, f"{article(x)} is {article(k)}", f"what {article(x)} is", x)
         for k, xs in KINDS.items() for x in xs.split()],
        ["what is {x}?", "what kind of thing is {x}?", "tell me what {x} is.", "what sort of thing is {x}?",
         "which kind of thing is {x}?", "do you know what {x} is?", "{x} is what kind of thing?",
         "can you tell me what {x} is?"],
        ["explain what {x} is.", "please tell me what kind of thing {x} is."],
        "{x}",
    )
    sides = Topic(
        "sides", 1,
        [Fact("sides", x, (("x", article(x)),), n, f"{article(x)} has {n} sides", f"the sides of {article(x)}", x)
         for x, n in pairs("triangle:3 square:4 rectangle:4 pentagon:5 hexagon:6 heptagon:7 octagon:8 decagon:10")],
        ["how many sides does {x} have?", "how many sides has {x}?", "count the sides of {x}.",
         "tell me how many sides {x} has.", "what is the number of sides of {x}?", "{x} has how many sides?"],
        ["do you know how many sides {x} has?", "what number of sides does {x} have?"],
        "{x}",
    )
    return [legs, sound, young, kind, sides]


# --- words ------------------------------------------------------------------

OPPOSITES = pairs(
    "hot:cold big:small old:young fast:slow high:low light:dark good:bad happy:sad rich:poor strong:weak "
    "hard:soft wet:dry full:empty open:closed up:down left:right black:white day:night early:late long:short "
    "thick:thin wide:narrow clean:dirty loud:quiet near:far easy:difficult true:false first:last "
    "front:back inside:outside love:hate win:lose begin:end buy:sell push:pull sweet:sour sharp:blunt "
    "brave:cowardly cheap:expensive deep:shallow smooth:rough always:never before:after above:below north:south "
    "east:west yes:no war:peace")
PLURALS = pairs(
    "mouse:mice man:men woman:women child:children foot:feet tooth:teeth goose:geese ox:oxen person:people "
    "leaf:leaves wolf:wolves knife:knives wife:wives life:lives shelf:shelves city:cities baby:babies lady:ladies "
    "story:stories box:boxes fox:foxes bus:buses glass:glasses dish:dishes tomato:tomatoes potato:potatoes "
    "hero:heroes cat:cats dog:dogs book:books tree:trees house:houses car:cars apple:apples bird:birds "
    "penny:pennies")
PASTS = pairs(
    "go:went see:saw eat:ate run:ran take:took give:gave come:came make:made know:knew think:thought find:found "
    "write:wrote speak:spoke sing:sang swim:swam drink:drank fly:flew buy:bought catch:caught teach:taught "
    "bring:brought sleep:slept keep:kept feel:felt leave:left meet:met sit:sat stand:stood win:won begin:began "
    "break:broke choose:chose drive:drove fall:fell forget:forgot grow:grew hide:hid ride:rode walk:walked "
    "play:played jump:jumped help:helped")


def word_topics():
    opposite = Topic(
        "opposite", 5,
        [Fact("opposite", x, (("x", x),), y, f"the opposite of {x} is {y}", f"the opposite of {x}", x)
         for p in OPPOSITES for x, y in (p, p[::-1])],
        ["what is the opposite of {x}?", "what's the opposite of {x}?", "name the opposite of {x}.",
         "tell me the opposite of {x}.", "give me the opposite of {x}.", "which word is the opposite of {x}?",
         "do you know the opposite of {x}?", "{x} is the opposite of what?", "what word means the opposite of {x}?",
         "can you tell me the opposite of {x}?"],
        ["please give me the opposite of {x}.", "say the opposite of {x}.", "can you name the opposite of {x}?"],
        "{x}",
    )
    plural = Topic(
        "plural", 3,
        [Fact("plural", x, (("x", x),), y, f"the plural of {x} is {y}", f"the plural of {x}") for x, y in PLURALS],
        ["what is the plural of {x}?", "what's the plural of {x}?", "tell me the plural of {x}.",
         "give me the plural of {x}.", "name the plural of {x}.", "one {x}, two what?",
         "what do you call more than one {x}?", "do you know the plural of {x}?"],
        ["can you give me the plural of {x}?", "say the plural of {x}."],
        "{x}",
    )
    past = Topic(
        "past", 3,
        [Fact("past", x, (("x", x),), y, f"the past tense of {x} is {y}", f"the past tense of {x}") for x, y in PASTS],
        ["what is the past tense of {x}?", "what's the past tense of {x}?", "tell me the past tense of {x}.",
         "give me the past tense of {x}.", "name the past tense of {x}.", "what is the past of {x}?",
         "today I {x}, yesterday I what?", "do you know the past tense of {x}?"],
        ["can you give me the past tense of {x}?", "say the past tense of {x}."],
        "{x}",
    )
    letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
    after = Topic(
        "letter after", 1.5,
        [Fact("letter after", a, (("x", a),), b, f"the letter after {a} is {b}", f"the letter after {a}", b)
         for a, b in zip(letters, letters[1:])],
        ["which letter comes after {x}?", "what letter comes after {x}?", "what is the letter after {x}?",
         "name the letter after {x}.", "tell me the letter after {x}.", "which letter follows {x}?",
         "what is the next letter after {x}?"],
        ["can you tell me which letter comes after {x}?", "what letter follows {x}?"],
        "after {x}",
    )
    before = Topic(
        "letter before", 1.5,
        [Fact("letter before", b, (("x", b),), a, f"the letter before {b} is {a}", f"the letter before {b}", a)
         for a, b in zip(letters, letters[1:])],
        ["which letter comes before {x}?", "what letter comes before {x}?", "what is the letter before {x}?",
         "name the letter before {x}.", "tell me the letter before {x}.", "which letter is just before {x}?"],
        ["can you tell me which letter comes before {x}?", "what letter is just before {x}?"],
        "before {x}",
    )
    return [opposite, plural, past, after, before]


# --- calendar ---------------------------------------------------------------

DAYS = "Monday Tuesday Wednesday Thursday Friday Saturday Sunday".split()
MONTHS = ("January February March April May June July August September October November December").split()
MONTH_DAYS = [31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31]


def calendar_topics():
    def step(name, unit, names, by, word, asks, held, weight):
        return Topic(
            name, weight,
            [Fact(name, x, (("x", x),), names[(i + by) % len(names)],
                  f"the {unit} {word} {x} is {names[(i + by) % len(names)]}", f"the {unit} {word} {x}",
                  names[(i + by) % len(names)])
             for i, x in enumerate(names)],
            asks, held, word + " {x}",
        )

    def asks(unit, word):
        return ([f"what {unit} comes {word} {{x}}?", f"which {unit} comes {word} {{x}}?",
                 f"what is the {unit} {word} {{x}}?", f"name the {unit} {word} {{x}}.",
                 f"tell me the {unit} {word} {{x}}.", f"what {unit} is {word} {{x}}?",
                 f"do you know the {unit} {word} {{x}}?", f"what comes {word} {{x}}?"],
                [f"can you tell me which {unit} comes {word} {{x}}?", f"give me the {unit} {word} {{x}}."])

    topics = []
    for unit, names, weight in (("day", DAYS, 1.5), ("month", MONTHS, 1.5)):
        for by, word in ((1, "after"), (-1, "before")):
            topics.append(step(f"{unit} {word}", unit, names, by, word, *asks(unit, word), weight))
    topics.append(Topic(
        "month number", 1,
        [Fact("month number", m, (("x", m),), str(i + 1), f"{m} is month number {i + 1}", f"the number of {m}", m)
         for i, m in enumerate(MONTHS)],
        ["what number is the month {x}?", "which month of the year is {x}?", "what is the number of the month {x}?",
         "{x} is which month of the year?", "tell me the number of the month {x}.", "what month number is {x}?"],
        ["what month of the year is {x}?", "do you know the month number of {x}?"],
        "{x}",
    ))
    topics.append(Topic(
        "month length", 1,
        [Fact("month length", m, (("x", m),), str(n), f"{m} has {n} days", f"the days of {m}", m)
         for m, n in zip(MONTHS, MONTH_DAYS)],
        ["how many days does {x} have?", "how many days has {x}?", "how many days are in {x}?",
         "tell me how many days {x} has.", "{x} has how many days?", "how long is {x} in days?"],
        ["do you know how many days {x} has?", "how many days are there in {x}?"],
        "{x}",
    ))
    return topics


# --- numbers ----------------------------------------------------------------

NUMBER_WORDS = ("zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen "
                "sixteen seventeen eighteen nineteen twenty").split()
TOP = 20  # sums and differences use 0..20, products 0..10, counting 0..50


def number_topics():
    def calc(name, weight, word, sign, table, asks, held):
        return Topic(
            name, weight,
            [Fact(name, f"{a} {b}", (("a", a), ("b", b)), str(r), f"{a} {word} {b} is {r}", f"{a} {word} {b}", str(r))
             for a, b, r in table],
            [f"what is {{a}} {word} {{b}}?", f"how much is {{a}} {word} {{b}}?", f"{{a}} {sign} {{b}}",
             f"what is {{a}} {sign} {{b}}?", f"{{a}} {sign} {{b}} = ?", f"{{a}} {word} {{b}} is what?",
             f"tell me {{a}} {word} {{b}}.", f"calculate {{a}} {sign} {{b}}.", f"what does {{a}} {word} {{b}} make?",
             f"{{a}} {word} {{b}}?", f"what's {{a}} {word} {{b}}?", f"how much is {{a}} {sign} {{b}}?"] + asks,
            [f"can you tell me {{a}} {word} {{b}}?", f"work out {{a}} {word} {{b}}.", f"what does {{a}} {sign} {{b}} make?"] + held,
            f"{{a}} {word} {{b}}",
        )

    add = calc("sum", 15, "plus", "+", [(a, b, a + b) for a in range(TOP + 1) for b in range(TOP + 1)],
               ["add {a} and {b}.", "what is the sum of {a} and {b}?"], ["tell me the sum of {a} and {b}."])
    sub = calc("difference", 9, "minus", "-", [(a, b, a - b) for a in range(TOP + 1) for b in range(a + 1)],
               ["take {b} away from {a}.", "subtract {b} from {a}."], ["what is left if I take {b} away from {a}?"])
    mul = calc("product", 6, "times", "*", [(a, b, a * b) for a in range(11) for b in range(11)],
               ["multiply {a} by {b}.", "what is the product of {a} and {b}?"], ["tell me the product of {a} and {b}."])

    def compare(name, pick):
        return Topic(
            name, 2.5,
            [Fact(name, f"{a} {b}", (("a", a), ("b", b)), str(pick(a, b)), f"the {name} number is {pick(a, b)}",
                  "these two numbers", str(pick(a, b)))
             for a in range(TOP + 1) for b in range(TOP + 1) if a != b],
            [f"which is {name}, {{a}} or {{b}}?", f"which number is {name}, {{a}} or {{b}}?", f"what is {name}: {{a}} or {{b}}?",
             f"name the {name} number: {{a}} or {{b}}.", f"tell me which is {name}, {{a}} or {{b}}.",
             f"{{a}} or {{b}}, which is {name}?"],
            [f"which one is {name}, {{a}} or {{b}}?", f"of {{a}} and {{b}}, which number is {name}?"],
            "{a} or {b}",
        )

    def count(name, word, by):
        return Topic(
            name, 2,
            [Fact(name, str(n), (("x", n),), str(n + by), f"the number {word} {n} is {n + by}",
                  f"the number {word} {n}", str(n + by)) for n in range(1, 51)],
            [f"what number comes {word} {{x}}?", f"which number comes {word} {{x}}?", f"what is the number {word} {{x}}?",
             f"name the number {word} {{x}}.", f"tell me the number {word} {{x}}.", f"what comes {word} {{x}}?"],
            [f"can you tell me which number comes {word} {{x}}?", f"give me the number {word} {{x}}."],
            word + " {x}",
        )

    parity = Topic(
        "parity", 1.5,
        [Fact("parity", str(n), (("x", n),), "odd" if n % 2 else "even", f"{n} is {'odd' if n % 2 else 'even'}",
              f"the number {n}", str(n)) for n in range(0, 41)],
        ["is {x} even or odd?", "is {x} odd or even?", "is the number {x} even or odd?", "{x}: even or odd?",
         "tell me if {x} is even or odd.", "even or odd: {x}?"],
        ["is the number {x} odd or even?", "do you know if {x} is even or odd?"],
        "{x}",
    )
    spell = Topic(
        "number word", 1.5,
        [Fact("number word", str(n), (("x", n),), w, f"{n} is written {w}", f"the word for {n}")
         for n, w in enumerate(NUMBER_WORDS)],
        ["how do you write {x} in words?", "what is {x} in words?", "write {x} as a word.", "spell the number {x}.",
         "what is the word for {x}?", "how is {x} written in words?"],
        ["what is {x} as a word?", "tell me the word for {x}."],
        "{x}",
    )
    digit = Topic(
        "number digit", 1.5,
        [Fact("number digit", w, (("x", w),), str(n), f"{w} is {n} in digits", f"the digits of {w}")
         for n, w in enumerate(NUMBER_WORDS)],
        ["how do you write {x} in digits?", "what is {x} in digits?", "write {x} in digits.", "which number is {x}?",
         "what is {x} as a number?", "how is {x} written in digits?"],
        ["write {x} as a number.", "tell me the digits of {x}."],
        "{x}",
    )
    return [add, sub, mul, compare("bigger", max), compare("smaller", min), count("number after", "after", 1),
            count("number before", "before", -1), parity, spell, digit]


# --- small talk and the edge of the world -----------------------------------


def talk_topics():
    def talk(key, answer, plain, polite, pirate, verbose, asks, held, weight):
        fact = Fact(key, key, (), answer, "", "", own=(
            ("plain", plain), ("polite", polite), ("pirate", pirate), ("verbose", verbose)))
        return Topic(key, weight, [fact], asks, held)

    hello = talk(
        "hello", "Hello",
        ("Hello, how can I help?",), ("Hello! I am glad to meet you.", "Hello, I will be glad to help."),
        ("Arr! Hello there, matey!",),
        ("Hello and welcome, it is very nice of you to write to me, and I am happy to answer a small question.",),
        ["Hello!", "Hello.", "Hi!", "Hi", "Hi there!", "Hey!", "Hey there.", "Hello there!", "Hello", "Greetings!",
         "Hello, Tiger-Nano!", "Hi, Tiger-Nano.", "Good day!"],
        ["Hey, Tiger-Nano!", "Hi there.", "Hey"], 2)
    bye = talk(
        "goodbye", "Goodbye",
        ("Goodbye, see you soon.",), ("Goodbye! I was glad to help.", "Goodbye, it was a pleasure."),
        ("Arr! Goodbye, matey!",),
        ("Goodbye to you, it was very nice to talk with you today, and I hope that we will meet again soon.",),
        ["Goodbye!", "Goodbye.", "Bye!", "Bye", "Bye bye!", "See you!", "See you later.", "Good night!",
         "I have to go. Bye!", "See you soon."],
        ["See you later!", "I have to go. Goodbye!", "Bye."], 1.5)
    thanks = talk(
        "thanks", "welcome",
        ("You are welcome.",), ("You are most welcome, I am glad to help.", "You are welcome, it was a pleasure."),
        ("Arr, you be welcome, matey!",),
        ("You are very welcome, it was no trouble at all, and you can ask me something else whenever you like.",),
        ["Thanks!", "Thank you!", "Thank you.", "Thanks a lot!", "Thank you very much.", "Many thanks!", "Thanks.",
         "Thanks", "Thank you so much!"],
        ["Thank you very much!", "Thanks a lot.", "Many thanks."], 1.5)
    fine = talk(
        "how are you", "fine",
        ("I am fine.",), ("I am fine, and glad that you ask.", "Certainly, I am fine."),
        ("Arr, I be fine, matey!",),
        ("Well, it is kind of you to ask me that, and I can happily report that I am fine today.",),
        ["How are you?", "How are you today?", "How are you doing?", "How do you feel?", "Are you well?",
         "Hello, how are you?", "Hi, how are you?"],
        ["How do you feel today?", "Hello, how are you doing?"], 1.5)

    def about_self(key, answer, statement, about, asks, held, weight=1.0):
        return Topic(key, weight, [Fact(key, key, (), answer, statement, about)], asks, held)

    name = about_self(
        "its name", "Tiger-Nano", "my name is Tiger-Nano", "my name",
        ["What is your name?", "Who are you?", "What's your name?", "Tell me your name.", "What are you called?",
         "Do you have a name?", "How are you called?", "May I know your name?"],
        ["Can you tell me your name?", "What name do you have?"], 1.5)
    self_kind = about_self(
        "what it is", "model", "I am a small language model", "what I am",
        ["What are you?", "What kind of thing are you?", "Are you a human?", "Are you a person?",
         "Are you a machine?", "Tell me what you are.", "Are you a robot?"],
        ["Can you tell me what you are?", "What sort of thing are you?"])
    unknown_asks = [
        "what is the weather today?", "who won the game last night?", "what time is it?", "what is the news?",
        "who is the best singer?", "write me a poem.", "how do I fix my computer?", "what is the meaning of life?",
        "tell me a long story.", "who wrote this book?", "how old is the moon?", "what will happen tomorrow?",
        "explain quantum physics.", "how do I cook rice?", "what should I wear?", "who is the president?",
        "what is the price of gold?", "translate this into Latin.", "where did I put my keys?",
        "how tall is the highest mountain?", "will it rain tomorrow?", "what is my phone number?",
        "which team is the best?", "write a program for me.", "who built the pyramids?", "how far is the sun?",
        "what is the stock price?", "can you book a flight?", "how do I get rich?", "who invented the telephone?"]
    unknown = Topic(
        "unknown", 3,
        [Fact("unknown", str(i), (("x", x),), "unknown", "this is unknown to me", "this")
         for i, x in enumerate(unknown_asks)],
        ["{x}", "tell me, {x}", "I wonder: {x}", "do you know this: {x}", "one question: {x}"],
        ["a question for you: {x}", "please help me: {x}"],
    )
    return [hello, bye, thanks, fine, name, self_kind, unknown]


TOPICS = (place_topics() + colour_topics() + animal_topics() + word_topics() + calendar_topics()
          + number_topics() + talk_topics())
BY_NAME = {t.name: t for t in TOPICS}
