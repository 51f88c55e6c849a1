"""Questions outside the model's skills, for training and for the exam; the answer is fixed."""

from __future__ import annotations

from engine.models.bundled.corpus import facts, words
from engine.models.bundled.corpus.source import Bank, Source, lines


def _listed(text: str) -> tuple[str, ...]:
    return tuple(" ".join(item.split()) for item in text.split(";"))


FILLERS: dict[str, tuple[str, ...]] = {
    "person": _listed("""
        Napoleon; Einstein; Shakespeare; Mozart; Cleopatra; Darwin; Picasso; Gandhi;
        Newton; Galileo; Beethoven; Columbus; Aristotle; Caesar; the pope; Queen Victoria"""),
    "topic": _listed("""
        quantum physics; the French revolution; black holes; the stock market; machine
        learning; love; the Roman empire; climate change; tax law; photosynthesis; the
        second world war; chess openings; modern art; gravity; democracy; dinosaurs;
        volcanoes; blockchain; philosophy; the internet; opera; genetics; autumn; my cat;
        history; cooking; inflation; electric cars; jazz; vaccines"""),
    "form": _listed("""
        poem; story; song; letter; report; joke; haiku; speech; summary; novel; blog post;
        review; limerick; script; essay"""),
    "task": _listed("""
        fix my bike; bake a cake; learn the piano; lose weight; invest my money; build a
        house; sleep better; grow tomatoes; find a job; clean a carpet; install Linux;
        cook rice; change a tyre; get rich; train a dog; repair a phone; write a book"""),
    "event": _listed("""
        the World Cup; the election; the Olympic games; the race; the chess championship;
        the Nobel prize; the war; the tennis final; the football match; the song contest"""),
    "place": _listed("""
        Mount Everest; the Eiffel tower; the Amazon; the Sahara; the Nile; Loch Ness; the
        moon; Jupiter; the Great Wall; Big Ben; the Pacific"""),
    "lang": _listed("""
        French; Spanish; German; Latin; Japanese; Chinese; Greek; Russian; Arabic"""),
    "office": _listed("""
        president; prime minister; king; mayor; leader; chancellor"""),
    "measure": _listed("""
        population; currency; area; anthem; flag; history; economy; climate; main export;
        highest mountain; oldest university"""),
    "work": _listed("""
        Hamlet; War and Peace; the Mona Lisa; Star Wars; the Bible; Don Quixote; Faust;
        the Odyssey; Titanic"""),
    "invention": _listed("""
        the telephone; the wheel; the light bulb; paper; the computer; radio; the bicycle;
        penicillin; the engine; glasses"""),
}

TRAIN_UNKNOWN: Bank = {
    "unknown": lines("""
        Who won {event} in {year}?
        Who won {event}
        When was {event} of {year}?
        What happened in {year}?
        Where was {event} in {year}?
        Write a {form} about {topic}.
        Write me a {form} about {topic}
        Write a {form}
        Tell me a {form} about {topic}.
        Tell me a {form}.
        I need a {form} about {topic}
        Compose a {form} for {name}.
        Explain {topic}.
        Explain {topic} to me
        What is {topic}?
        What do you think about {topic}?
        Tell me about {topic}.
        Why is {topic} important?
        How does {topic} work?
        Who discovered {topic}?
        Summarise {topic}.
        Teach me {topic}
        What is the history of {topic}?
        Is {topic} good or bad?
        Give me three facts about {topic}.
        Which book should I read about {topic}?
        How do I {task}
        How can I {task}?
        Help me to {task}.
        What do I need to {task}?
        Should I {task}?
        I want to {task}. What now?
        Who is {person}?
        When was {person} born?
        When did {person} die?
        Where did {person} live?
        What did {person} do?
        Tell me about {person}
        Why is {person} famous?
        Who is {name} {surname}?
        Who was {name} {surname}
        How old is {name} {surname}?
        How high is {place}?
        How old is {place}?

        How far is it to {place}?
        How long is {place}
        Who built {place}?
        How deep is {place}?
        Translate {word} into {lang}.
        What is {word} in {lang}?
        How do you say {word} in {lang}?
        Translate "{text}" to {lang}.
        Do you speak {lang}?
        Who is the {office} of {country}?
        Who was the {office} of {country} in {year}?
        Name the {office} of {country}.
        What is the {measure} of {country}?
        Tell me the {measure} of {country}
        How big is the {measure} of {country}?
        What is the {measure} of {city}?
        What language do they speak in {country}?
        How many people live in {country}?
        How many people live in {city}
        What is the weather in {city}?
        What's the weather like in {city}
        Will it rain in {city}?
        How warm is it in {city}?
        What time is it in {city}?
        What time is it
        What is the date today?
        What day is today?
        What is the news?
        What is the stock price of {Word}?
        How much does a {word} cost?
        Where can I buy a {word}?
        What is a good restaurant in {city}?
        Book a hotel in {city}.
        How do I get from {city} to {city2}?
        Who wrote {work}?
        Who painted {work}?
        When was {work} made?
        What is {work} about?
        Who invented {invention}?
        When was {invention} invented?
        How does {invention} work?
        What does {word} mean?
        What does the word {word} mean
        Define {word}.
        What is a {word}?
        What is the meaning of life?
        What is the meaning of {word}?
        What is the capital of {Fake}?
        Capital of {Fake}?
        On which continent is {Fake}?
        Tell me the capital of {Fake}
        What colour is a {fake}?
        What sound does a {fake} make?
        What is the opposite of {fake}?

        What is the square root of {number}?
        What is {a} times {b}?
        What is {a} * {b}
        {a} x {b}
        What is {a} divided by {b}?
        {a} / {b}
        What is {number} percent of {b}?
        Solve the equation x + {a} = {b}.
        Is {number} a prime number?
        Write a Python function for {topic}.
        Write code that can {task}
        Fix this code: print({word}
        Write an SQL query for {word}
        What is the best {word}?
        Which {word} should I buy?
        Recommend a {word}.
        Can you call {name}?
        Send an email to {name}.
        Show me a picture of a {word}.
        Draw a {word}.
        Sing a song.
        Play some music
        Open the file {word}.
        Search for {word}.
        What did I eat yesterday?
        What am I thinking?
        Predict the future.
        Will {name} win?
        Who will win {event}?
        Why do people {task}?
        Why is the {word} so {adjective}?
        Do you like {topic}?
        What is your opinion on {topic}?
        Are you able to {task}?
        Which medicine helps against a cold?
        Is it legal to {task}?
        {fake} {fake2} {fake}
        asdf {fake}
        What is {Fake}?
        Who is {Fake}?
        Tell me something about {Fake}
        Who is the best {job} in the world?
        How much money does a {job} make?
        What does a {job} do?
        How many {word}s are in {city}?
        How many stars are in the sky?
        How tall is {name}?
        Compare {topic} and {topic2}.
        What is better, {topic} or {topic2}?
        Give me advice about {topic}.
        What happened to {person}?
        Which team is the best?"""),
}

HELDOUT_UNKNOWN: Bank = {
    "unknown": lines("""
        Who won {event} back in {year}?
        Please write an essay about {topic}.
        Can you explain {topic} to a child?
        What are the latest news about {topic}?
        Can you tell me how to {task}?
        In which year was {person} born?
        Who was {person}?
        How tall is {place}?
        How do I say "{word}" in {lang}?
        Please translate "{word}" to {lang}.
        Who is the current {office} of {country}?
        How many people are there in {country}?
        What's the {measure} of {country}?
        What will the weather be in {city} tomorrow?
        What time is it now in {city}?
        Who is the author of {work}?
        Who was the inventor of {invention}?
        What is the capital city of {Fake}?
        Can you write a Python script that sorts a list?
        Which phone should I buy?
        Can you give me medical advice?
        What is the price of gold today?"""),
}

ANSWER = "Sorry, I do not know that. I am only a tiny demo model."


def question(source: Source) -> str:
    """A question that the model must decline."""
    slots: dict[str, object] = {key: source.pick(values) for key, values in FILLERS.items()}
    fake = words.made_up(source, 2 + int(source.chance(0.5)))
    common = source.split(words.WORDS, words.HELDOUT_WORDS)
    slots |= {
        "topic2": source.pick(FILLERS["topic"]),
        "year": 1500 + int(source.rng.random() * 530),
        "name": words.name(source),
        "surname": words.made_up(source, 2).capitalize(),
        "word": common,
        "Word": common.capitalize(),
        "text": f"{source.pick(words.ADJECTIVES)} {common}",
        "country": source.pick(tuple(facts.COUNTRIES)),
        "city": words.city(source),
        "city2": words.city(source),
        "fake": fake,
        "fake2": words.made_up(source, 2),
        "Fake": fake.capitalize(),
        "number": 10 + int(source.rng.random() * 990),
        "a": 2 + int(source.rng.random() * 98),
        "b": 2 + int(source.rng.random() * 98),
        "adjective": source.pick(words.ADJECTIVES),
        "job": source.split(words.JOBS, words.HELDOUT_JOBS),
    }
    return source.ask("unknown", **slots)
