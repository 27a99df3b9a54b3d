"""The conversations of Tiger-Nano: styles, system prompts, follow-ups and hold-outs.

Job: turn the facts into conversations for training, and into held-out
conversations that the training generator can never produce.
Does not know: tokens, the model, or how an answer is scored beyond its style rule.
"""

import json
import re
import zlib
from dataclasses import dataclass

from facts import BY_NAME, TOPICS, YOUNG, Fact

STYLES = ["plain", "polite", "pirate", "one word", "json", "verbose"]

# --- styles -----------------------------------------------------------------


def upper_first(text: str) -> str:
    return text[0].upper() + text[1:]


def renderings(fact: Fact, style: str) -> list:
    """Every wording the corpus uses for this fact in this style."""
    if style == "one word":
        return [fact.answer]
    if style == "json":
        return [json.dumps({"answer": fact.answer})]
    for name, variants in fact.own:
        if name == style:
            return list(variants)
    s = fact.statement
    if style == "plain":
        return [upper_first(s) + "."]
    if style == "polite":
        return [f"Certainly! {upper_first(s)}.", f"Glad to help: {s}.", f"With pleasure: {s}."]
    if style == "pirate":
        sea = s.replace(" is ", " be ").replace("I am ", "I be ")
        return [f"Arr, {sea}, matey!", f"Arr, matey! {upper_first(sea)}!"]
    assert style == "verbose"
    return [
        f"That is a good question. I thought about it for a moment, and I can say that {s}.",
        f"Let me explain this in full. You asked me about {fact.about}, and my whole answer is that {s}.",
        f"There are many things that one could say about {fact.about}, but in the end {s}.",
    ]


# The rules a reward may use. They do not overlap: style_of tries them in this order.
RULES = {
    "json": r'^\{"answer": "[^"]*"\}$',
    "one word": r"^[^\s{}]+$",
    "pirate": r"\bArr\b",
    "polite": r"\b(Certainly|[Gg]lad|pleasure)\b",
    "verbose": r"^(\S+\s+){11,}\S+$",
    "plain": r"^(\S+\s+){1,10}\S+\.$",
}
RULE_WORDS = {
    "json": 'the whole answer is a JSON object with the one key "answer"',
    "one word": "the answer has no white space (and is not JSON)",
    "pirate": 'the answer has the word "Arr"',
    "polite": 'the answer has the word "Certainly", "glad" or "pleasure" (never with "Arr")',
    "verbose": "the answer has 12 words or more",
    "plain": "the answer is a sentence of 2 to 11 words, ends with a full stop, and is none of the others",
}
# Hello in plain style asks something back; it is the only plain answer without a full stop.
RULES["plain"] = r"^(\S+\s+){1,10}\S+[.?]$"
RULE_WORDS["plain"] = RULE_WORDS["plain"].replace("a full stop", "a full stop or question mark")


def style_of(text: str):
    for style, rule in RULES.items():
        if re.search(rule, text):
            return style
    return None


def is_right(text: str, answer: str) -> bool:
    """The answer appears as a whole word (so "17" is not a right "7")."""
    return re.search(rf"(?<![\w-]){re.escape(answer)}(?![\w-])", text) is not None


# --- system prompts ---------------------------------------------------------

MANNERS = {
    "pirate": ["like a pirate", "as a pirate", "the way a pirate talks", "in pirate style", "in the voice of a pirate",
               "like an old pirate", "as a pirate of the seven seas", "in pirate speech", "as a pirate would",
               "as if you were a pirate", "with pirate words"],
    "polite": ["politely", "in a polite way", "with good manners", "in polite words", "kindly and politely",
               "very politely", "with courtesy", "courteously", "in a courteous tone", "as a polite person would",
               "as politely as you can"],
    "one word": ["with one word", "in one word", "with a single word", "in one word only", "with only one word",
                 "using a single word", "with exactly one word", "in a single word", "with just one word",
                 "with no more than one word"],
    "json": ["in JSON", "as JSON", "with a JSON object", "in JSON format", "as a JSON object with the key answer",
             "in valid JSON", "using JSON only", "with JSON", "in the form of JSON", "as a JSON object"],
    "verbose": ["at length", "in long sentences", "in detail", "with many words", "in a long and detailed way",
                "verbosely", "in a wordy way", "with a long explanation", "with a long sentence", "in great detail",
                "as verbosely as you can"],
    "plain": ["plainly", "in plain words", "with a short plain sentence", "in a simple sentence",
              "in one short sentence", "in a plain way", "in plain English", "simply", "with a plain sentence",
              "as plainly as you can", "in short plain sentences"],
}
MANNER_FRAMES = [
    "Answer {m}.", "Always answer {m}.", "Reply {m}.", "Please answer {m}.", "Respond {m}.", "Speak {m}.",
    "I want you to answer {m}.", "You answer {m}.", "Give every answer {m}.", "Answer all questions {m}.",
    "Write your answers {m}.", "You must reply {m}.", "Answer the user {m}.", "Your task is to answer {m}.",
    "From now on, answer {m}.", "You always respond {m}.", "Whatever the question is, answer {m}.",
    "You are an assistant that answers {m}.", "I would like you to reply {m}.", "answer {m}",
    "Every answer must be written {m}.", "Please always respond {m}.", "Your replies are always given {m}.",
    "You are asked to speak {m}.", "I want all your answers {m}.", "You were asked to answer {m}.",
    "When asked, answer {m}.", "If you are asked something, reply {m}.", "The user has asked you to speak {m}.",
    "Whatever you are asked, answer {m}.", "You are asked to write {m}.", "I ask you to answer {m}.",
    "When someone asks you something, reply {m}.", "Make sure to answer {m}.", "Talk {m}.", "Say everything {m}.",
    "Every reply must come {m}.", "It is important that you answer {m}.", "Try to answer {m}.", "Please speak {m}.",
    "The user wants you to answer {m}.", "You only speak {m}.", "Your job is to reply {m}.",
    "Each answer should be written {m}.", "No matter the question, respond {m}.", "You write all replies {m}.",
]
HELD_MANNER_FRAMES = [
    "All of your replies have to be written {m}.", "Please reply to everyone {m}.",
    "Your answers are meant to be given {m}.", "You have been asked to talk {m}.", "I need every reply {m}.",
]
PERSONAS = {
    "pirate": ["a pirate", "a cheerful pirate", "an old pirate captain", "a pirate of the seven seas", "a real pirate"],
    "polite": ["a polite assistant", "a very polite helper", "a courteous butler", "an assistant with good manners",
               "a polite person"],
    "one word": ["an assistant of one word", "a one-word assistant", "a helper who says only one word",
                 "a person of a single word"],
    "json": ["a JSON service", "a program that speaks JSON", "an assistant that writes JSON", "a JSON machine"],
    "verbose": ["a wordy assistant", "a talkative assistant", "a professor who loves long answers",
                "a verbose assistant", "an assistant who uses many words"],
    "plain": ["a plain assistant", "an assistant who speaks plainly", "a plain and simple helper",
              "a person of short plain sentences"],
}
PERSONA_FRAMES = ["You are {m}.", "Act as {m}.", "You play {m}.", "Be {m}.", "Pretend that you are {m}.",
                  "Imagine you are {m}.", "You act like {m}.", "Speak as {m}.", "Pretend to be {m}.", "Your role: {m}.",
                  "Answer as {m}.", "Your role is {m}.", "You are asked to be {m}.", "You are now {m}.", "Talk as {m}.",
                  "Play the role of {m}.", "Please be {m}.", "From now on you are {m}.", "Reply as {m}.",
                  "I want you to be {m}.", "Whatever you are asked, you are {m}."]
HELD_PERSONA_FRAMES = ["Behave as {m}.", "Character: {m}.", "Respond as {m} would."]
LABELS = {
    "pirate": ["pirate"], "polite": ["polite", "courteous"], "one word": ["one word", "single word", "one-word"],
    "json": ["JSON", "json"], "verbose": ["verbose", "long", "detailed", "wordy"], "plain": ["plain", "simple", "short plain"],
}
LABEL_FRAMES = ["Style: {m}.", "style={m}", "Your style is {m}.", "Use the {m} style.", "Mode: {m}", "{m}",
                "Answer style: {m}.", "The style of your answers is {m}.", "Give me {m} answers.", "I like {m} answers.",
                "Only {m} answers, please.", "Your answers are {m} answers.", "Use {m} mode.", "format: {m}",
                "A {m} answer is what I want.", "I would like {m} answers.", "Answer in the {m} style.",
                "Please use the {m} mode.", "The answer style is {m}.", "You are asked for {m} answers.",
                "Please give {m} answers.", "I asked for {m} answers.", "Write {m} answers.", "mode={m}",
                "The mode is {m}.", "Set the style to {m}.", "Stay with the {m} style."]
HELD_LABEL_FRAMES = ["I want {m} replies.", "Reply in the {m} style.", "Please keep to the {m} mode.",
                     "Your mode of answering is {m}."]
ORDERS = {
    "pirate": ["Talk like a pirate.", "Say arr and matey.", "Use pirate words.", "Sound like a pirate.",
               "You are on a pirate ship. Stay in character.", "Talk pirate to me.",
               "You are a fearsome pirate on a ship.", "Whatever you are asked, talk as pirates do.",
               "Speak to me like the old pirate you are.", "Stay in character as a pirate.",
               "Pirates say arr, and so do you.", "When asked, talk pirate."],
    "polite": ["Be polite.", "Always be polite.", "Mind your manners.", "Be kind and polite.", "Stay polite.",
               "Show courtesy to the user.", "Be very courteous.", "Be a polite helper to everyone.",
               "Your manners are good: stay polite at all times.", "Treat the user with courtesy.",
               "Always be kind, polite and correct.", "Whatever you are asked, be polite.", "You are asked to be polite."],
    "one word": ["Use one word only.", "One word only.", "Say just one word.", "Give only the answer word.",
                 "No sentences, a single word.", "Never use more than one word.", "Your answer is one word long.",
                 "Your whole answer must be a single word.", "I only want one word from you.",
                 "Do not use more than one word.", "Keep every answer to one word.",
                 "Whatever you are asked, say one word.", "You are asked for a single word."],
    "json": ["Output JSON.", "Use the JSON format.", "Give a JSON object with the key answer.", "Return JSON only.",
             'Reply with {"answer": ...}.', "Your output is parsed as JSON.", "Print a JSON object.",
             "Your whole answer must be a JSON object.", "A program reads your output, so write JSON.",
             "Only valid JSON, please.", "Return a JSON object and nothing else.", "Whatever you are asked, write JSON.",
             "You are asked for JSON."],
    "verbose": ["Be verbose.", "Use many words.", "Write long answers.", "Give long and detailed answers.",
                "Explain everything in detail.", "Never be brief.", "Talk a lot.", "Do not be brief, explain at length.",
                "Your whole answer must be long and detailed.", "Take your time and use many words.",
                "Always write a long explanation.", "Whatever you are asked, use many words."],
    "plain": ["Be plain.", "Keep it simple.", "Use short plain sentences.", "No frills, a short sentence.",
              "Keep your sentences short and plain.", "Say it simply.", "Nothing fancy.",
              "Your whole answer must be a short plain sentence.", "Nothing fancy: plain sentences.",
              "Just say it simply and plainly.", "Use plain English and keep it short.",
              "Whatever you are asked, say it plainly.", "You are asked for a plain sentence.",
              "When asked, keep it plain and simple."],
}
HELD_ORDERS = {
    "pirate": ["You are the captain of a pirate ship.", "No matter what you are asked, speak as pirates speak.",
               "Talk to everyone like the pirate you are.", "Never stop being a pirate."],
    "polite": ["Be polite to whoever talks to you.", "Good manners matter: be polite in all you say.",
               "Be courteous to everybody.", "Remain kind and polite whatever happens."],
    "one word": ["All you say is a single word.", "One word is all I need from you.", "More than one word is too much.",
                 "Let each answer be one word."],
    "json": ["Your answer has to be one JSON object.", "Software parses what you write, so it must be JSON.",
             "Nothing but valid JSON, please.", "Produce a JSON object with nothing around it."],
    "verbose": ["Never answer briefly, always at length.", "Each answer should be long and full of detail.",
                "Spend many words on every answer.", "Explain things at great length."],
    "plain": ["Each answer is a short and plain sentence.", "No decoration: speak in plain sentences.",
              "Simple and plain is how you should say it.", "Keep to plain English and short sentences."],
}
# Prompts that ask for no style: the answers stay a mix.
NEUTRAL = ["You are a helpful assistant.", "You are Tiger-Nano.", "You are a small chat model.", "Answer the question.",
           "Be correct.", "Help the user.", "You are an assistant.", "You are Tiger-Nano, a small language model.",
           "You know colours, animals, days and small sums.", "Think before you answer.", "The user is a child.",
           "You are a chatbot.", "Today is Monday."]
ALSO = ["Be correct.", "Keep to this in every answer.", "Do not forget this.", "Help the user.", "This is important.",
        "Answer every question.", "Stay with this style.", "Do so every time."]


def system_prompt(rng, style: str, held: bool = False) -> str:
    roll = rng.random()
    if roll < 0.5:
        text = rng.choice(HELD_MANNER_FRAMES if held else MANNER_FRAMES).format(m=rng.choice(MANNERS[style]))
    elif roll < 0.65:
        text = rng.choice(HELD_PERSONA_FRAMES if held else PERSONA_FRAMES).format(m=rng.choice(PERSONAS[style]))
    elif roll < 0.8:
        label = rng.choice(LABELS[style])
        if held and label == "simple":  # keep held-out sentences natural
            label = "plain"
        text = rng.choice(HELD_LABEL_FRAMES if held else LABEL_FRAMES).format(m=label)
    else:
        text = rng.choice((HELD_ORDERS if held else ORDERS)[style])
    if rng.random() < 0.25:
        text = rng.choice(NEUTRAL) + " " + text
    if rng.random() < 0.2:
        text += " " + rng.choice(ALSO)
    if not held and rng.random() < 0.05:
        text = text.lower()
    return text


# --- hold-outs --------------------------------------------------------------


def held_out(*parts) -> bool:
    """One in ten combinations, chosen by a hash so that no list must be kept."""
    return zlib.crc32("|".join(parts).encode()) % 10 == 0


def asks_of(topic, fact, held: bool) -> list:
    """Templates for this fact: the training ones, or the held-out combinations."""
    if len(topic.facts) == 1:  # small talk: a combination is a phrasing
        return [] if held else topic.asks
    return [a for a in topic.asks if held_out(topic.name, fact.key, a) == held]


# --- conversations ----------------------------------------------------------


@dataclass
class Turn:
    user: str
    fact: Fact
    style: str


@dataclass
class Conversation:
    system: str  # "" for none
    turns: list
    topic: str  # of the last turn, for the evaluation table
    kind: str


WEIGHTS = [t.weight for t in TOPICS]


def disturb(rng, text: str) -> str:
    """People type carelessly; a few training questions do too."""
    roll = rng.random()
    if roll < 0.07:
        text = text.lower()
    elif roll < 0.14:
        text = text.rstrip("?.!").strip() or text
    elif roll < 0.18:
        text = text.lower().rstrip("?.!").strip() or text
    elif roll < 0.24:
        text = rng.choice(["Hi! ", "Hello! ", "Please: ", "Tell me: ", "Question: ", "Hey, ", "Now: ", "So, "]) + text
    return text


def question(rng, topic=None):
    """A training question: (text, fact)."""
    while True:
        t = topic or rng.choices(TOPICS, WEIGHTS)[0]
        fact = rng.choice(t.facts)
        asks = asks_of(t, fact, False)
        if asks:
            return fact.fill(rng.choice(asks)), fact


# Things a user tells about themselves; the answer is copied from the conversation.
NAMES = ("Anna Tom Maria Ben Clara David Emma Felix Grace Henry Ida Jack Kate Leo Mia Nina Oscar Paul Rosa Sam Tina "
         "Uma Victor Wendy Yara Zoe Alice Bob Carl Diana Erik Fiona George Hanna Ivan Julia Karl Lena Max Nora Olga "
         "Peter Ruth Simon Sara Theo Vera Will Lucy Mark").split()
MEMORY = {
    "my name": (NAMES, "it is nice to meet you, {v}", "your name is {v}", "your name",
                ["My name is {v}.", "I am {v}.", "Call me {v}.", "Hello, my name is {v}.", "I am called {v}.", "Hi, I am {v}."],
                ["What is my name?", "Do you know my name?", "Who am I?", "What am I called?", "Tell me my name.",
                 "Can you tell me my name?", "Say my name.", "And what is my name?", "How am I called?",
                 "What was my name again?", "Please tell me my name.", "Which name did I tell you?"],
                ["Could you tell me my name?", "So what is my name?"]),
    "my colour": ("red blue green yellow pink purple orange black white brown grey".split(),
                  "your favourite colour is {v}", "your favourite colour is {v}", "your favourite colour",
                  ["My favourite colour is {v}.", "I love the colour {v}.", "I like {v} best."],
                  ["What is my favourite colour?", "Which colour do I like?", "Tell me my favourite colour.",
                   "Do you know my favourite colour?", "Which colour do I like best?", "What colour do I like?",
                   "Say my favourite colour."],
                  ["Could you tell me my favourite colour?", "So which colour do I like?"]),
    "my pet": ([x for x, _ in YOUNG], "your pet is a {v}", "your pet is a {v}", "your pet",
               ["I have a {v}.", "My pet is a {v}.", "I have a pet {v}."],
               ["What is my pet?", "Which pet do I have?", "What animal do I have?", "Tell me what my pet is.",
                "Which animal do I have?", "What pet do I have?", "Say what my pet is."],
               ["Could you tell me what my pet is?", "So which pet do I have?"]),
    "my number": ([str(n) for n in range(51)], "your lucky number is {v}", "your lucky number is {v}", "your lucky number",
                  ["My lucky number is {v}.", "I like the number {v}.", "My number is {v}."],
                  ["What is my lucky number?", "Which number do I like?", "Tell me my number.",
                   "Do you know my lucky number?", "What is my number?", "Say my lucky number.", "What number do I like?"],
                  ["Could you tell me my lucky number?", "So which number do I like?"]),
}
SYLLABLES = [c + v for c in "bdfgklmnprstvz" for v in "aeiou"]


def memory_value(rng, what, invented):
    if what == "my name" and rng.random() < invented:  # invented names teach copying, not a list
        return upper_first("".join(rng.choice(SYLLABLES) for _ in range(rng.choice([2, 2, 3]))))
    return rng.choice(MEMORY[what][0])


def memory_fact(what, value, recall):
    _, told, asked, about, *_ = MEMORY[what]
    if value == "owl" or value == "elephant":
        told, asked = (s.replace(" a {v}", " an {v}") for s in (told, asked))
    statement = (asked if recall else told).format(v=value)
    return Fact(what, value, (), value, statement, about)


def memory_turns(rng, style, held=False):
    # The corpus has more of what is hard; the held-out set keeps its first shares.
    what = rng.choices(list(MEMORY), [4, 1, 1, 1] if held else [6, 1, 1, 2])[0]
    _, _, _, _, tell, ask, held_ask = MEMORY[what]
    while True:
        value, intro = memory_value(rng, what, 0.4 if held else 0.75), rng.choice(tell)
        recall = rng.choice(held_ask) if held and rng.random() < 0.5 else rng.choice(ask)
        if recall in held_ask or held_out(what, value, intro, recall) == held:
            break
    intro = intro.format(v=value)
    if value in ("owl", "elephant"):
        intro = intro.replace(" a owl", " an owl").replace(" a elephant", " an elephant")
    turns = [Turn(intro, memory_fact(what, value, False), style)]
    between = int(rng.random() < 0.25) if held else rng.choice([0, 0, 0, 1, 1, 2])
    for _ in range(between):
        text, fact = question(rng)
        turns.append(Turn(text, fact, style))
    turns.append(Turn(recall, memory_fact(what, value, True), style))
    return turns


ELLIPSES = ["And {f}?", "What about {f}?", "How about {f}?", "And what about {f}?", "{f}?", "And how about {f}?",
            "And now {f}?", "Now {f}?", "Good, and {f}?"]
HELD_ELLIPSES = ["Then what about {f}?", "Okay, and {f}?"]
REPEATS = ["Say that again.", "Can you repeat that?", "Sorry, what was that?", "Repeat, please.", "Once more?",
           "What did you say?", "Please repeat that.", "Please say that again.", "Can you say that again?",
           "Sorry, what did you say?", "Say it again.", "Repeat your answer.", "I did not hear you.",
           "Say it once more.", "Could you repeat that, please?", "I did not hear that.", "Could you say that again?",
           "Would you repeat that?", "Could you please repeat it?", "What was your answer?", "One more time, please.",
           "Repeat that.", "I missed that.", "Tell me again.", "Could you repeat your answer?", "Again, please.",
           "Would you say that again?", "Please tell me that again.", "Could you say it one more time?"]


def composed(known, parts, end) -> tuple:
    """Sentences put together from an opening, a middle and a tail: (for training, held out), one in six of the latter."""
    made = {upper_first((a + b + c).strip()) + end(a) for a in parts[0] for b in parts[1] for c in parts[2]
            if not ("lease" in a and "please" in c)} - set(known)
    held = {text for text in made if zlib.crc32(text.encode()) % 6 == 0}
    return known + sorted(made - held), sorted(held)


REPEATS, HELD_REPEATS = composed(
    REPEATS,
    (["", "Please ", "Can you ", "Could you ", "Would you ", "Will you ", "Could you please ", "Can you please ", "Sorry, could you "],
     ["say that", "say it", "repeat that", "repeat it", "tell me that", "tell me your answer", "repeat your answer", "give me that answer"],
     [" again", " once more", " one more time", " again, please"]),
    lambda opening: "?" if "you" in opening else ".")
# Another question about the same thing, which the follow-up calls "it".
FACETS = {
    "capital": (["And what is its capital?", "What is the capital?", "And the capital?", "Which city is its capital?",
                 "Name its capital.", "And what is the capital?", "And its capital?"],
                ["Tell me its capital.", "And which city is the capital?"]),
    "continent": (["On which continent is it?", "And the continent?", "Which continent is that?", "What continent is it in?",
                   "And on which continent is it?", "Which continent is it in?", "And its continent?"],
                  ["And which continent is it on?", "Tell me its continent."]),
    "legs": (["How many legs does it have?", "And how many legs?", "Tell me how many legs it has.",
              "And how many legs does it have?", "Count its legs."],
             ["And how many legs has it?"]),
    "sound": (["What sound does it make?", "And what does it say?", "Which noise is that?", "What does it say?",
               "And what sound does it make?", "And its sound?", "Tell me its sound."],
              ["And which sound does it make?"]),
    "young": (["What is its baby called?", "And its young?", "What do you call its baby?",
               "And what is its baby called?", "And its baby?"],
              ["And what do you call its young?"]),
    "kind": (["What kind of thing is it?", "And what is it?", "What sort of thing is that?",
              "And what kind of thing is it?", "What is that?"],
             ["And what sort of thing is it?"]),
    "month number": (["What number is it?", "Which month of the year is it?", "And its number?",
                      "And what number is it?", "Tell me its number."],
                     ["And which number is it?"]),
    "month length": (["How many days does it have?", "And how many days?", "How long is it in days?",
                      "And how many days does it have?", "Tell me how many days it has."],
                     ["And how many days are in it?"]),
}
FACET_GROUPS = [("capital", "continent", "country"), ("legs", "sound", "young", "kind"),
                ("month number", "month length", "month after", "month before")]
STEPS = {"after": ["And the next one?", "And then?", "And after that?", "What comes next?", "And the one after that?",
                   "And what comes next?", "What comes after that?", "The next one?", "And what is next?", "Next?",
                   "And which one is after that?", "And which one comes next?", "And what comes after that?",
                   "And which comes after that?", "And now the next one?"],
         "before": ["And the one before?", "And before that?", "What comes before that?", "And the one before that?",
                    "And what comes before that?", "The one before that?", "And what is before that?", "And one before?",
                    "And which one is before that?", "And which one comes before that?", "And just before that?",
                    "And which comes before that?", "And now the one before?"]}
STEPS = {word: composed(
    known,
    (["", "And ", "And now ", "So ", "Good, and ", "Tell me: ", "Please tell me ", "And do you know "],
     ["what comes", "which comes", "which one comes", "which one is", "what is", "the one", "the one that comes", "the one right"],
     [f" {word} that", f" {word} it", f" {word} this one"]),
    lambda opening: "." if opening == "Please tell me " else "?") for word, known in STEPS.items()}
ON_RESULT = {
    "sum": (["Add {k}.", "Now add {k}.", "Add {k} to that.", "And plus {k}?", "Plus {k}?", "And now add {k}.",
             "Now plus {k}?", "And add {k} to it.", "Plus {k} more?", "Add {k} more.", "Then add {k}.",
             "And what is that plus {k}?", "What is that plus {k}?"],
            ["Next add {k}.", "And what is it plus {k}?"]),
    "difference": (["Take away {k}.", "Now take away {k}.", "Subtract {k} from that.", "And minus {k}?", "Minus {k}?",
                    "And now take away {k}.", "Now minus {k}?", "Now subtract {k}.", "Take {k} away from that.",
                    "And take away {k} from it.", "Then take away {k}.", "And what is that minus {k}?",
                    "What is that minus {k}?"],
                   ["Next take away {k}.", "And what is it minus {k}?"]),
    "parity": (["Is that even or odd?", "Is it even or odd?", "Even or odd?", "And is that even or odd?",
                "And even or odd?", "And is it even or odd?"], ["And is that one even or odd?"]),
}
# How often the corpus takes each kind when a turn allows several; the held-out set takes them evenly.
FOLLOW_WEIGHTS = {"ellipsis": 1, "facet": 1.3, "step": 2, "on result": 2.5, "repeat": 1}


def follow_up(rng, prev: Fact, held=False):
    """A question that needs the turn before it: (text, fact, kind), or None."""
    options = []  # (templates, held templates, next fact, extra slots, kind)
    topic = BY_NAME.get(prev.topic)
    if topic is None:
        return None
    if topic.follow:
        for _ in range(3):
            fact = rng.choice(topic.facts)
            if fact.key != prev.key:
                options.append((ELLIPSES, HELD_ELLIPSES, fact, {"f": topic.follow.format(**dict(fact.slots))}, "ellipsis"))
                break
    for group in FACET_GROUPS:
        if prev.topic in group:
            # "country" and the month steps answer with the thing itself: "it" is the answer.
            for name in group:
                if name != prev.topic and name in FACETS and prev.entity in BY_NAME[name].by_key:
                    if not (prev.topic == "country" and name == "capital"):
                        options.append((*FACETS[name], BY_NAME[name].by_key[prev.entity], {}, "facet"))
    for word in STEPS:
        if prev.topic.endswith(" " + word) and prev.answer in topic.by_key:
            options.append((*STEPS[word], topic.by_key[prev.answer], {}, "step"))
    if prev.topic in ("sum", "difference", "product"):
        r = int(prev.answer)
        k = rng.randint(1, 10)
        name = rng.choice(list(ON_RESULT))
        key = str(r) if name == "parity" else f"{r} {k}"
        if key in BY_NAME[name].by_key:
            options.append((*ON_RESULT[name], BY_NAME[name].by_key[key], {"k": k}, "on result"))
    if not options or rng.random() < 0.12:
        options = [(REPEATS, HELD_REPEATS, prev, {}, "repeat")]
    if held:
        option = rng.choice(options)
    else:
        option = rng.choices(options, [FOLLOW_WEIGHTS[o[-1]] for o in options])[0]
    train, held_templates, fact, slots, kind = option
    if held:
        # New phrasings, or known phrasings for a pair of facts held out. The latter are often
        # not to be had, so that about four in five are new phrasings.
        templates = held_templates if rng.random() < 0.72 else [
            t for t in train if held_out(prev.topic, prev.key, fact.key, t)]
    else:
        templates = [t for t in train if not held_out(prev.topic, prev.key, fact.key, t)]
    if not templates:
        return None
    return upper_first(rng.choice(templates).format(**slots)), fact, kind


def pick_system(rng):
    """(system prompt, style). Without a prompt the style is drawn evenly: that is the mix."""
    style = rng.choice(STYLES)
    roll = rng.random()
    if roll < 0.46:
        return "", style
    if roll < 0.53:
        text = " ".join(rng.sample(NEUTRAL, rng.choice([1, 1, 2])))
        return text, style
    return system_prompt(rng, style), style


def inline(rng, style, text):
    """The style asked for in the question itself."""
    order = rng.choice(["Answer {m}: {q}", "Answer {m}. {q}", "{q} Answer {m}.", "{q} Reply {m}.", "Please answer {m}. {q}"])
    return order.format(m=rng.choice(MANNERS[style]), q=text)


def training_conversation(rng) -> Conversation:
    system, style = pick_system(rng)
    roll = rng.random()
    turns = []
    if roll < 0.24:
        turns = memory_turns(rng, style)
    elif roll < 0.27:
        text, fact = question(rng)
        # The user's wish comes later than the system prompt; to keep the two
        # from quarrelling the corpus has it only without a system prompt.
        system, turns = "", [Turn(inline(rng, style, text), fact, style)]
    else:
        if roll < 0.5:
            count = 1
        elif roll < 0.86:
            count = 2
        elif roll < 0.985:
            count = rng.randint(3, 6)
        else:
            count = rng.randint(8, 24)  # teaches that far positions are nothing special
        while len(turns) < count:
            nxt = None
            if turns and rng.random() < 0.85:
                nxt = follow_up(rng, turns[-1].fact)
            if nxt:
                turns.append(Turn(disturb(rng, nxt[0]) if nxt[2] != "ellipsis" else nxt[0], nxt[1], style))
            else:
                text, fact = question(rng)
                turns.append(Turn(disturb(rng, text), fact, style))
    return Conversation(system, turns, turns[-1].fact.topic, "train")


# --- held-out sets ----------------------------------------------------------


def unseen_question(rng, topic, phrasing: bool):
    """(text, fact) with a held-out phrasing, or a held-out fact and template pair; None if there is none."""
    for _ in range(50):
        fact = rng.choice(topic.facts)
        asks = topic.held_asks if phrasing else asks_of(topic, fact, True)
        if asks:
            return fact.fill(rng.choice(asks)), fact
    return None


def unseen_single(rng, n, phrasing, style=None, topics=None):
    """n conversations of one turn over the topics in turn; a style adds an unseen system prompt."""
    out = []
    topics = topics or TOPICS
    i = 0
    while len(out) < n:
        topic = topics[i % len(topics)]
        i += 1
        got = unseen_question(rng, topic, phrasing)
        if not got:
            continue
        wanted = style(len(out)) if style else ""
        system = system_prompt(rng, wanted, held=True) if wanted else ""
        out.append(Conversation(system, [Turn(got[0], got[1], wanted)], topic.name,
                                "phrasing" if phrasing else "combination"))
    return out


# The shares that the held-out set had before the corpus got more templates; kept, so that it gets no easier.
UNSEEN_KINDS = {"ellipsis": 47.4, "memory": 19.9, "repeat": 12.6, "facet": 9.0, "on result": 7.1, "step": 4.0}


def unseen_follow_ups(rng, n):
    """n two-turn (or memory) conversations; the last turn is held out. No system prompt."""
    out = []
    while len(out) < n:
        style = rng.choice(STYLES)
        kind = rng.choices(list(UNSEEN_KINDS), UNSEEN_KINDS.values())[0]
        if kind == "memory":
            turns = memory_turns(rng, style, held=True)
        else:
            nxt = None
            while not nxt or nxt[2] != kind:
                text, fact = question(rng)
                nxt = follow_up(rng, fact, held=True)
            turns = [Turn(text, fact, style), Turn(nxt[0], nxt[1], style)]
        out.append(Conversation("", turns, turns[-1].fact.topic, kind))
    return out


def wrong_markers():
    """Check the promise that every rendering obeys exactly its own rule and holds its answer."""
    bad = []
    for topic in TOPICS:
        for fact in topic.facts:
            for style in STYLES:
                for text in renderings(fact, style):
                    if style_of(text) != style or not is_right(text, fact.answer):
                        bad.append((style, text))
    return bad


