"""Phrasings for the exam. Written apart from the training ones and disjoint from them."""

from __future__ import annotations

from engine.models.bundled.corpus.source import Bank, lines

HELDOUT: Bank = {
    "greet": lines("""
        Hello, good to be here!
        Hi, good to meet you!
        Heya!
        Good evening!
        Hello there, friend.
        Hi, can we talk?"""),
    "how_are_you": lines("""
        How are you doing?
        How's it going?
        Hello, how are you today?"""),
    "thanks": lines("""
        Thanks for that!
        Thank you for your help.
        Thanks so much!"""),
    "bye": lines("""
        Okay, goodbye then!
        Bye bye!
        See you later!"""),
    "identity": lines("""
        Hello! Who are you, please?
        What are you exactly?
        Please introduce yourself.
        Can you tell me your name?
        Who am I chatting with?
        Tell me a bit about yourself."""),
    "abilities": lines("""
        What can you do for me?
        What can you help me with?
        What kind of things can you do?
        Which skills do you have?"""),
    "are_you_human": lines("""
        Are you a human being?
        Are you a real human or a bot?
        Am I talking to a person?"""),
    "size": lines("""
        How large are you?
        How many parameters does this model have?"""),
    "generic_system": lines("""
        You are a helpful and friendly assistant.
        Answer the user's questions briefly."""),
    "persona_full": lines("""
        You are {name}, {role}. Be polite to the user.
        Your name is {name}, and you work as {role}.
        Pretend you are {name}, {role}.
        In this chat you are {name}, {role}."""),
    "persona_role": lines("""
        You are {role}. Always stay in your role.
        Please act as {role}.
        In this conversation you are {role}."""),
    "persona_name": lines("""
        Your name is {name}. Help the user.
        You are a friendly assistant named {name}.
        You go by the name {name}."""),
    "job": lines("""
        What do you do for work?
        What is it that you do for a living?
        So what's your job?"""),
    "rule_upper": lines("""
        Always answer in upper case letters.
        Please reply in capital letters only."""),
    "rule_lower": lines("""
        Always reply in lower case.
        Please use small letters only."""),
    "rule_end": lines("""
        Every answer must end with the word {word}.
        You always end your answers with {word}.
        Finish all your replies with {word}."""),
    "rule_start": lines("""
        Every answer must start with the word {word}.
        You always begin your answers with {word}.
        Start all your replies with {word}."""),
    "rule_short": lines("""
        Always answer with a single word.
        Reply with one word only."""),
    "tell_name": lines("""
        Just so you know, my name is {value}.
        Hi! I'm {value}.
        Hello! Nice to meet you, I am {value}.
        Good morning, I am {value}.
        Please call me {value}."""),
    "rename": lines("""
        Sorry, actually my name is {value}.
        Oh wait, please call me {value}."""),
    "ask_name": lines("""
        So, what is my name?
        What's my name again?
        Do you still remember my name?
        Can you tell me what my name is?
        And who am I?"""),
    "tell_number": lines("""
        I want you to remember the number {value}.
        Please remember the number {value} for me.
        My favourite number is {value}, remember it.
        The number to remember is {value}."""),
    "ask_number": lines("""
        So what was the number?
        Which number did I ask you to remember?
        Can you tell me the number?
        What was my number again?"""),
    "tell_colour": lines("""
        My favourite colour of all is {value}.
        By the way, my favorite color is {value}."""),
    "ask_colour": lines("""
        Which colour is my favourite?
        So which color is my favorite?"""),
    "tell_city": lines("""
        I live in {value} now.
        I am living in {value}."""),
    "ask_city": lines("""
        Do you remember where I live?
        Which city am I living in?"""),
    "tell_pet": lines("""
        I own a {pet} named {value}.
        My {pet} is named {value}."""),
    "ask_pet": lines("""
        What's the name of my {pet}?
        What is my {pet} named?"""),
    "tell_age": lines("""
        I am now {value} years old.
        By the way, I'm {value} years old."""),
    "ask_age": lines("""
        Do you remember my age?
        Can you tell me how old I am?"""),
    "tell_food": lines("""
        The food I love most is {value}.
        My favourite dish is {value}."""),
    "ask_food": lines("""
        Which food do I love?
        What was my favourite food?"""),
    "add": lines("""
        Could you tell me what {a} + {b} is?
        What's {a} plus {b}?
        Can you add {a} and {b}?
        Please calculate {a} + {b}
        How much do {a} and {b} make together?
        What do {a} and {b} add up to?
        What is the result of {a} + {b}?
        Anna has {a} books and buys {b} more. How many books does she have?"""),
    "subtract": lines("""
        Could you tell me what {a} - {b} is?
        What's {a} minus {b}?
        Can you subtract {b} from {a}?
        Please calculate {a} - {b}
        What do I get if I take {b} away from {a}?
        What is the result of {a} - {b}?"""),
    "subtract_story": lines("""
        Anna has {a} books and gives away {b}. How many books does she have left?"""),
    "capital": lines("""
        What would be the capital of {country}?
        Do you happen to know the capital of {country}?
        Please tell me the capital city of {country}.
        Which city is {country}'s capital?
        Could you name the capital of {country}?"""),
    "capital_inverse": lines("""
        Which country is {capital} the capital of?
        {capital} is the capital city of which country?"""),
    "continent": lines("""
        Which continent is {country} on?
        On what continent can I find {country}?"""),
    "colour": lines("""
        What is the usual colour of {thing}?
        What is the color of {thing}?
        Can you tell me what color {thing} is?"""),
    "sound": lines("""
        What would a {animal} say?
        What kind of sound does a {animal} make?"""),
    "legs": lines("""
        How many legs would a {animal} have?
        Do you know how many legs a {animal} has?"""),
    "opposite": lines("""
        What would be the opposite of {word}?
        What is the opposite of the word {word}?
        Can you give me the opposite of "{word}"?"""),
    "count": lines("""
        So how many {parts} does {whole} have?
        How many {parts} can I find in {whole}?
        Can you tell me how many {parts} there are in {whole}?"""),
    "after": lines("""
        What comes right after {item}?
        Which one comes after {item}?"""),
    "before": lines("""
        What comes right before {item}?
        Which one comes before {item}?"""),
    "spell": lines("""
        I need you to spell the word {word}.
        How do you spell the word "{word}"?
        Could you spell {word} for me?
        Spell {word}, letter by letter."""),
    "reverse": lines("""
        Can you reverse the word {word}?
        What is the word {word} spelled backwards?
        Please write "{word}" backwards.
        Reverse this word: {word}"""),
    "count_letters": lines("""
        How many letters does the word {word} have?
        How many letters are there in the word "{word}"?
        Can you count the letters in {word}?"""),
    "count_words": lines("""
        How many words does this sentence have: {text}
        How many words are there in "{text}"?
        Can you count the words in "{text}"?
        Count how many words this sentence has: {text}"""),
    "count_to": lines("""
        Can you count from {start} to {stop}?
        Give me the numbers from {start} to {stop}."""),
    "repeat": lines("""
        Can you repeat this: {text}
        Please say "{text}"."""),
    "json_object": lines("""
        Please give me a JSON object with {pairs}.
        Can you write a JSON object with {pairs}?
        Reply with a JSON object that contains {pairs}.
        Return JSON: {pairs}."""),
    "json_list": lines("""
        Please give me a JSON list with {items}.
        Write {items} as a JSON array."""),
    "json_wrap": lines("""
        Answer in JSON please: {question}
        {question} Please reply in JSON.
        {question} Give me the answer as a JSON object."""),
    "json_extract": lines("""
        {sentence} Return {keys} as a JSON object.
        Read this: {sentence} Now give me JSON with {keys}.
        Extract {keys} and answer in JSON: {sentence}"""),
    "json_system": lines("""
        You always reply in JSON.
        Respond with a JSON object only."""),
}
