"""Training phrasings for arithmetic and facts."""

from __future__ import annotations

from engine.models.bundled.corpus.source import Bank, lines

TRAIN_EXACT: Bank = {
    "add": lines("""
        {a}+{b}
        {a} + {b}
        {a} + {b} =
        {a}+{b}=
        {a}+{b}=?
        What is {a} + {b}
        What is {a}+{b}?
        What's {a} + {b}
        Calculate {a} + {b}.
        Compute {a}+{b}.
        How much is {a} + {b}?
        How much is {a} plus {b}
        What is {a} plus {b}?
        Add {a} and {b}.
        Add {b} to {a}.
        Please add the numbers {a} and {b}.
        What is the sum of {a} and {b}
        Sum {a} and {b}
        Tell me {a} + {b}.
        Give me the sum of {a} and {b}.
        Solve {a} + {b}.
        Work out {a} plus {b}.
        What do you get when you add {a} and {b}?
        What does {a} plus {b} make?
        {a} and {b} together
        The total of {a} and {b}
        Find {a} + {b}.
        I need the result of {a} + {b}.
        {a} plus {b} is what?
        If I add {a} to {b}, what do I get?
        I have {a} apples and get {b} more. How many apples do I have?
        There are {a} cars and {b} more arrive. How many cars are there now?
        One box has {a} pens and another has {b}. How many pens in total?
        Tom has {a} coins. Mia has {b} coins. How many coins do they have together?
        A bus carries {a} people and {b} more get on. How many people are on the bus?
        Mia has {a} sweets and finds {b} more. How many sweets does she have?
        Ben has {a} cards and gets {b} cards from Tom. How many cards does Ben have now?
        Lisa bought {a} pens and later {b} pens. How many pens does she have?
        Paul read {a} pages today and {b} pages yesterday. How many pages did he read?"""),
    "subtract": lines("""
        {a}-{b}
        {a} - {b}
        {a} - {b} =
        {a}-{b}=
        {a}-{b}=?
        What is {a} - {b}
        What is {a}-{b}?
        What's {a} - {b}
        Calculate {a} - {b}.
        Compute {a}-{b}.
        How much is {a} - {b}?
        How much is {a} minus {b}
        What is {a} minus {b}?
        Subtract {b} from {a}.
        Please subtract {b} from {a}.
        Take {b} from {a}.
        What is the difference of {a} and {b}
        Tell me {a} - {b}.
        Solve {a} - {b}.
        Work out {a} minus {b}.
        What do you get when you subtract {b} from {a}?
        What does {a} minus {b} make?
        What remains of {a} if you take {b}?
        Find {a} - {b}.
        I need the result of {a} - {b}.
        {a} minus {b} is what?
        {a} less {b}
        If I take {b} from {a}, what do I get?"""),
    "subtract_story": lines("""
        I have {a} apples and eat {b} of them. How many apples do I have?
        There are {a} cars and {b} drive away. How many cars are there now?
        A box has {a} pens. I take {b} out. How many pens remain?
        Tom has {a} coins and spends {b}. How many coins has he now?
        A bus carries {a} people and {b} get off. How many people are on the bus?
        I had {a} dollars and lost {b}. How much do I have now?
        Mia has {a} sweets and gives {b} to Tom. How many sweets does she keep?
        Ben had {a} cards and sold {b} of them. How many cards does Ben have now?
        Lisa has {a} pens. She loses {b}. How many pens are left?
        There were {a} birds in a tree and {b} flew off. How many are left?
        Paul buys {a} eggs and {b} break. How many good eggs are left?
        A shop has {a} lamps and sells {b}. How many lamps does it still have?
        Of {a} pages I have read {b}. How many pages are left?"""),
    "capital": lines("""
        What is the capital of {country}
        What's the capital of {country}
        What is the capital city of {country}?
        Capital of {country}
        Capital of {country}?
        the capital of {country}
        {country} capital
        {country}'s capital?
        Tell me the capital of {country}.
        Name the capital of {country}.
        Which city is the capital of {country}?
        Which is the capital of {country}?
        Do you know the capital of {country}?
        Can you tell me the capital of {country}?
        What city is the capital of {country}?
        Give me the capital of {country}.
        I want to know the capital of {country}.
        The capital of {country} is
        What is {country}'s capital?
        What is the name of the capital of {country}?
        Say the capital of {country}."""),
    "capital_inverse": lines("""
        {capital} is the capital of which country
        Which country has the capital {capital}?
        {capital} is the capital of what?
        What country has {capital} as its capital?
        The capital {capital} belongs to which country?
        Name the country with the capital {capital}."""),
    "continent": lines("""
        On which continent is {country}
        Which continent is {country} in?
        What continent is {country} on?
        Where is {country}?
        Tell me the continent of {country}.
        In which part of the world is {country}?
        {country} is on which continent?
        Name the continent of {country}."""),
    "colour": lines("""
        What colour is {thing}
        What color is {thing}?
        Which colour is {thing}?
        What is the colour of {thing}?
        What's the color of {thing}?
        Tell me the colour of {thing}.
        Name the color of {thing}.
        {thing} has which colour?
        Colour of {thing}?
        What colour does {thing} have?"""),
    "sound": lines("""
        What does a {animal} say
        What sound does a {animal} make?
        Which sound does a {animal} make?
        What is the sound of a {animal}?
        What noise does a {animal} make?
        Tell me the sound of a {animal}.
        How does a {animal} sound?
        Make the sound of a {animal}.
        A {animal} says what?"""),
    "legs": lines("""
        How many legs does a {animal} have
        How many legs has a {animal}?
        Number of legs of a {animal}?
        What is the number of legs of a {animal}?
        Tell me how many legs a {animal} has.
        Count the legs of a {animal}.
        A {animal} has how many legs?
        How many legs are there on a {animal}?"""),
    "opposite": lines("""
        What is the opposite of {word}
        What's the opposite of {word}?
        Opposite of {word}
        Tell me the opposite of {word}.
        Name the opposite of {word}.
        Give me the opposite of {word}.
        Which word is the opposite of {word}?
        What is the antonym of {word}?
        What word means the opposite of {word}?
        {word} is the opposite of what?"""),
    "count": lines("""
        How many {parts} does {whole} have
        How many {parts} are in {whole}
        How many {parts} are there in {whole}?
        How many {parts} has {whole}?
        Number of {parts} in {whole}
        What is the number of {parts} in {whole}?
        Tell me how many {parts} {whole} has.
        {whole} has how many {parts}?
        Tell me the number of {parts} in {whole}.
        Do you know how many {parts} {whole} has?"""),
    "after": lines("""
        What comes after {item}
        Which day or month comes after {item}?
        What is after {item}?
        What follows {item}?
        Name what comes after {item}.
        After {item} comes what?
        Tell me what comes after {item}."""),
    "before": lines("""
        What comes before {item}
        Which day or month comes before {item}?
        What is before {item}?
        Name what comes before {item}.
        Before {item} comes what?
        Tell me what comes before {item}."""),
}
