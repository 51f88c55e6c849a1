"""Training phrasings for telling something and asking for it later."""

from __future__ import annotations

from engine.models.bundled.corpus.source import Bank, lines

TRAIN_MEMORY: Bank = {
    "tell_name": lines("""
        My name is {value}
        I am {value}.
        I'm {value}
        I'm {value}.
        Call me {value}.
        You can call me {value}.
        Hi, I am {value}.
        Hi, my name is {value}.
        Hello! My name is {value}.
        They call me {value}.
        Please remember that my name is {value}.
        My name's {value}.
        This is {value} speaking.
        The name is {value}.
        I am called {value}.
        Hey, {value} here.
        People call me {value}.
        Remember my name: {value}.
        Hello, I'm {value}, nice to meet you."""),
    "rename": lines("""
        Actually, my name is {value}.
        Sorry, I meant {value}. My name is {value}.
        Correction: my name is {value}.
        I changed my name to {value}.
        From now on, call me {value}.
        No, my name is {value}.
        My new name is {value}."""),
    "ask_name": lines("""
        What is my name
        What's my name
        Do you know my name?
        Do you remember my name?
        Who am I
        Tell me my name.
        Say my name.
        What am I called?
        Which name did I give you?
        What did I say my name was?
        Can you tell me my name?
        Can you recall my name?
        Please repeat my name.
        My name is what?
        What was my name?
        How am I called?
        Remind me of my name."""),
    "tell_number": lines("""
        Remember the number {value}
        My number is {value}.
        The number is {value}.
        Please remember {value}.
        Keep the number {value} in mind.
        My favourite number is {value}.
        My lucky number is {value}
        Memorise {value}.
        Here is a number: {value}. Remember it.
        Remember this: {value}
        Store the number {value} for me.
        I picked the number {value}.
        The secret number is {value}.
        My favorite number is {value}."""),
    "ask_number": lines("""
        What is my number?
        What was the number
        What number did I tell you?
        Which number did I give you?
        Tell me the number.
        Do you remember the number?
        What is my favourite number?
        What is my lucky number?
        What number should you remember?
        Repeat the number.
        Which number did I pick?
        What's the secret number?
        Say the number again.
        What number was it?
        What is the number?
        Do you still know my number?
        What's my favorite number?"""),
    "tell_colour": lines("""
        My favourite colour is {value}.
        My favorite color is {value}.
        I like the colour {value} best.
        The colour I like most is {value}.
        I love the color {value}.
        For me the best colour is {value}.
        Remember that my favourite colour is {value}."""),
    "ask_colour": lines("""
        What is my favourite colour?
        What's my favorite color
        Which colour do I like?
        Which color do I like best?
        What colour do I love?
        Do you remember my favourite colour?
        Tell me my favorite color.
        What is the colour I like most?"""),
    "tell_city": lines("""
        I live in {value}.
        I am from {value}.
        My home is in {value}.
        My city is {value}.
        I come from {value}
        I moved to {value}.
        My home town is {value}.
        I have a flat in {value}."""),
    "ask_city": lines("""
        Where do I live
        Where am I from?
        Which city do I live in?
        What is my city?
        Where do I come from?
        Do you know where I live?
        Tell me where I live.
        What is my home town?
        In which city do I live?"""),
    "tell_pet": lines("""
        My {pet} is called {value}.
        I have a {pet} called {value}.
        I have a {pet} named {value}.
        My {pet}'s name is {value}.
        The name of my {pet} is {value}.
        We have a {pet} and call it {value}.
        My {pet} has the name {value}."""),
    "ask_pet": lines("""
        What is my {pet} called?
        What is the name of my {pet}?
        What's my {pet}'s name
        Do you remember the name of my {pet}?
        How is my {pet} called?
        Which name does my {pet} have?
        Tell me the name of my {pet}."""),
    "tell_age": lines("""
        I am {value} years old.
        I'm {value} years old
        My age is {value}.
        I turned {value} this year.
        I just turned {value}.
        I am {value} years of age."""),
    "ask_age": lines("""
        How old am I
        What is my age?
        What's my age
        Do you know how old I am?
        Tell me my age.
        Which age did I say?
        How many years old am I?"""),
    "tell_food": lines("""
        My favourite food is {value}.
        My favorite food is {value}.
        I love to eat {value}.
        I like {value} most of all food.
        The food I like best is {value}.
        I could eat {value} every day."""),
    "ask_food": lines("""
        What is my favourite food?
        What's my favorite food
        What do I like to eat?
        Which food do I like best?
        What food do I love?
        Do you remember what I like to eat?
        Tell me my favourite food."""),
}
