"""Training phrasings about the assistant: greetings, questions, personas and style rules."""

from __future__ import annotations

from engine.models.bundled.corpus.source import Bank, lines

TRAIN_TALK: Bank = {
    "greet": lines("""
        Hi
        Hi!
        Hello
        Hello.
        Hey
        Hey!
        Hi there!
        Hello there
        Good morning
        Good afternoon!
        Good day.
        Greetings!
        Howdy
        Hey there
        Yo
        Hiya!
        Hello, tiny-chat!
        Hi bot
        Hello again
        Hey, nice to see you.
        Hello, I am new here.
        Hi, is anyone there?
        Hello world
        Just saying hi
        I wanted to say hello.
        Nice to meet you.
        Pleased to meet you!
        Great to meet you
        It is good to see you.
        Hello, nice to be here.
        Hi, shall we talk?
        Hey friend!
        Good to see you again"""),
    "how_are_you": lines("""
        How are you?
        How are you today?
        How do you do?
        How is it going?
        What's up?
        Hi, how are you doing?
        Are you well?
        How do you feel?
        You good?
        Hope you are well!"""),
    "thanks": lines("""
        Thanks
        Thank you!
        Thanks a lot.
        Thank you very much
        Many thanks!
        Thx
        That was helpful, thank you.
        Great, thanks.
        Cool, thank you
        Perfect, thanks!
        Nice, thank you so much.
        Thank you for this.
        Thank you for the answer.
        Thanks for your time.
        Thanks for helping me.
        Thank you, that helps.
        I thank you.
        Much appreciated!
        Okay, thank you.
        Thank you for helping me.
        Thanks for the help!
        Thank you, your help was great.
        Thanks for all your help."""),
    "bye": lines("""
        Bye
        Bye!
        Goodbye
        Good bye!
        See you
        See you soon.
        Good night
        I have to go.
        Farewell
        Talk to you later
        Bye for now
        That is all, bye.
        Okay, bye then.
        Okay, see you then!
        Alright, goodbye for now.
        Well then, goodbye.
        I am leaving now, bye."""),
    "identity": lines("""
        Who are you
        Who is this?
        What are you
        What is your name
        What's your name?
        Tell me your name.
        Tell me who you are.
        Tell me about yourself
        Who am I speaking to?
        Who am I talking to?
        What should I call you?
        Describe yourself.
        Can you say who you are?
        And you are?
        What model are you?
        Which model is this?
        What kind of model are you?
        Say who you are.
        Who or what are you?
        I would like to know who you are.
        Your name?
        Do you have a name?
        May I ask your name?
        Give me a short description of yourself.
        What is this model?
        Hello, who are you?
        Hi, what is your name?
        Introduce yourself
        Could you tell me who you are?
        How are you called?"""),
    "abilities": lines("""
        What can you do
        What are you able to do?
        How can you help me?
        What are you good at?
        What are your skills?
        Tell me what you can do.
        What do you know?
        List your abilities.
        What are your abilities?
        In what ways can you help?
        What sort of things can I ask you?
        What do you do?
        What can I use you for?
        help
        What can I ask you?
        What can you help with?
        Which things can you do?
        Tell me about your skills.
        What are you capable of?
        What tasks can you do for people?
        What are you useful for?"""),
    "are_you_human": lines("""
        Are you a human?
        Are you human
        Are you a real person?
        Are you a robot?
        Are you a person or a machine?
        Are you alive?
        Is this a bot?
        Am I speaking to a human?
        Are you a computer?
        Do you have a body?
        Are you an AI?
        Are you a language model?
        Is there a person behind this?"""),
    "size": lines("""
        How big are you?
        Are you a big model?
        How many parameters do you have?
        Are you a large model?
        What is your size?
        Are you small?
        How large is this model?
        Are you tiny?
        How smart are you?
        Are you as good as a large model?
        What is your number of parameters?
        Tell me how many parameters you have.
        How many parameters are in you?
        How much memory do you need?"""),
    "generic_system": lines("""
        You are a helpful assistant.
        You are a helpful assistant
        You are a friendly assistant.
        Be helpful.
        Answer the questions of the user.
        You are a useful assistant. Be brief.
        Be polite and short.
        You are an assistant."""),
    "persona_full": lines("""
        You are {name}, {role}.
        You are {name}, {role}. Stay in character.
        Your name is {name} and you are {role}.
        Your name is {name}. You are {role}.
        Act as {name}, {role}.
        Pretend to be {role} called {name}.
        You are {role} named {name}.
        You are {role} whose name is {name}.
        Play the role of {name}, {role}.
        You will act as {role}. Your name is {name}.
        Act as {role} named {name}. Be friendly.
        Imagine you are {name}, {role}.
        You are {name}. You are {role}.
        You are now {name}, {role}. Answer briefly."""),
    "persona_role": lines("""
        You are {role}.
        You are {role}
        You are {role}. Stay in character.
        Act as {role}.
        Act like {role}.
        Pretend to be {role}.
        Pretend that you are {role}.
        Play the role of {role}.
        Imagine that you are {role}.
        You are now {role}.
        Speak like {role}.
        You will play {role}. Be brief.
        Be {role}.
        You are {role}. Answer the user."""),
    "persona_name": lines("""
        Your name is {name}.
        You are {name}.
        You are called {name}.
        You are an assistant called {name}.
        You are an assistant named {name}.
        You are {name}, an assistant.
        You are {name}, a helpful assistant.
        You are a helpful assistant named {name}.
        Your name is {name}. Be friendly.
        The name of this assistant is {name}.
        Use the name {name} for yourself."""),
    "job": lines("""
        What is your job?
        What's your job
        What do you do for a living?
        What kind of person are you?
        What is your profession?
        What do you work as?
        What is your role?
        Tell me what your job is.
        What are you?
        What is your occupation?
        What work do you do?"""),
    "rule_upper": lines("""
        Always answer in upper case.
        Answer in upper case.
        Answer only in capital letters.
        Write everything in capital letters.
        Use only upper case letters.
        You write in upper case only.
        Reply in all caps.
        All your answers are in capital letters.
        Speak in capital letters.
        Write in ALL CAPS."""),
    "rule_lower": lines("""
        Always answer in lower case.
        Answer in lower case.
        Write everything in small letters.
        Use only lower case letters.
        You write in lower case only.
        Reply without capital letters.
        Never use capital letters.
        Speak in lower case."""),
    "rule_end": lines("""
        End every answer with {word}.
        End each answer with the word {word}.
        Always end with {word}.
        Finish every answer with {word}.
        Finish each reply with "{word}".
        Say {word} at the end of every answer.
        Your answers must end with the word {word}.
        Put {word} at the end of each reply.
        Always finish with the word {word}.
        The last word of every answer is {word}.
        All answers must end with {word}.
        You end every answer with {word}.
        You finish each answer with the word {word}.
        Close every reply with {word}."""),
    "rule_start": lines("""
        Start every answer with {word}.
        Start each answer with the word {word}.
        Always start with {word}.
        Begin every answer with {word}.
        Begin each reply with "{word}".
        Say {word} at the start of every answer.
        Your answers must start with the word {word}.
        Put {word} at the beginning of each reply.
        Always begin with the word {word}.
        The first word of every answer is {word}.
        All answers must start with {word}.
        You start every answer with {word}.
        You begin each answer with the word {word}.
        Open every reply with {word}."""),
    "rule_short": lines("""
        Answer with one word.
        Answer with one word only.
        Reply with a single word.
        Use only one word.
        Give one-word answers.
        Your answers have exactly one word.
        Be very short: one word per answer.
        Answer in just one word.
        Always reply with one single word.
        One word per answer, please.
        Only one word, please.
        Every answer is a single word."""),
}
