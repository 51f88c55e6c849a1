"""Training phrasings for word games and JSON."""

from __future__ import annotations

from engine.models.bundled.corpus.source import Bank, lines

TRAIN_TEXT: Bank = {
    "spell": lines("""
        Spell {word}
        Spell {word}.
        Spell the word {word}.
        Spell "{word}".
        Spell the word "{word}"
        How do you spell {word}
        How do you spell "{word}"?
        How is {word} spelled?
        How is the word {word} written letter by letter?
        Can you spell {word}?
        Please spell the word {word}
        Tell me the spelling of {word}.
        Spell out {word}.
        Spelling of {word}
        Give me the spelling of "{word}".
        Write {word} letter by letter.
        What are the letters of {word}?
        Split {word} into letters.
        List the letters of the word "{word}"."""),
    "reverse": lines("""
        Reverse {word}
        Reverse the word {word}.
        Reverse "{word}".
        Reverse the word "{word}".
        What is {word} backwards
        What is "{word}" backwards?
        Write {word} backwards.
        Spell {word} backwards.
        Spell the word {word} backwards.
        Write the word "{word}" in reverse.
        How do you write {word} backwards?
        Say {word} backwards.
        Turn {word} around.
        Write {word} from back to front.
        What is the reverse of {word}?
        Reverse the letters of {word}.
        Reverse the letters in "{word}".
        What is {word} in reverse?"""),
    "count_letters": lines("""
        How many letters are in {word}
        How many letters are in the word {word}?
        How many letters does {word} have?
        How many letters does "{word}" have
        Count the letters in {word}.
        Count the letters of the word "{word}".
        How many letters are there in {word}
        Number of letters in {word}?
        How long is the word {word}?
        What is the number of letters in "{word}"?
        Tell me how many letters {word} has.
        {word} has how many letters?
        Letter count of {word}"""),
    "count_words": lines("""
        How many words are there: {text}
        How many words are in "{text}"
        How many words are in the sentence "{text}"?
        Count the words: {text}
        Count the words in "{text}".
        Count the words in this sentence: {text}
        How many words does "{text}" have?
        How many words are in this text: {text}
        Number of words in "{text}"?
        Please count the words in: {text}
        What is the number of words in "{text}"
        Tell me how many words this has: {text}
        How many words has the sentence "{text}"?
        Word count of "{text}"
        How many words are in: {text}"""),
    "count_to": lines("""
        Count from {start} to {stop}
        Count from {start} to {stop}.
        Please count from {start} up to {stop}.
        Count up from {start} to {stop}.
        Say the numbers from {start} to {stop}.
        List the numbers from {start} to {stop}
        Write the numbers {start} to {stop}.
        Print all numbers from {start} to {stop}.
        Numbers from {start} to {stop}"""),
    "repeat": lines("""
        Repeat: {text}
        Repeat after me: {text}
        Repeat "{text}".
        Repeat the words "{text}".
        Repeat this: {text}
        Say {text}
        Say "{text}".
        Say: {text}
        Just say {text}
        Write "{text}".
        Echo: {text}
        Echo "{text}"
        Please repeat: {text}
        Copy this: {text}
        Say exactly this: {text}"""),
    "json_object": lines("""
        Give me a JSON object with {pairs}
        Give me a JSON object with {pairs}.
        Give me JSON with {pairs}.
        Write a JSON object with {pairs}.
        Create a JSON object with {pairs}
        Make a JSON object with {pairs}.
        Return a JSON object with {pairs}.
        I need a JSON object with {pairs}.
        Output JSON with {pairs}
        JSON object with {pairs}
        Please write JSON with {pairs}.
        Put this in JSON: {pairs}.
        Turn this into JSON: {pairs}
        Format as JSON: {pairs}.
        Convert to a JSON object: {pairs}
        Show {pairs} as JSON.
        Can you make a JSON object with {pairs}?
        Generate JSON containing {pairs}.
        A JSON object that has {pairs}."""),
    "json_list": lines("""
        Give me a JSON list of {items}.
        Give me a JSON array with {items}
        Write a JSON list with {items}.
        Make a JSON array of {items}.
        Return a JSON list of {items}
        Put {items} in a JSON array.
        Turn this into a JSON list: {items}.
        Create a JSON list containing {items}.
        I need a JSON array of {items}.
        Show {items} as a JSON list.
        JSON array with {items}
        Output a JSON list: {items}"""),
    "json_wrap": lines("""
        Answer in JSON: {question}
        Answer as JSON: {question}
        {question} Answer in JSON.
        {question} Answer with JSON.
        {question} Reply as JSON.
        Reply in JSON. {question}
        In JSON: {question}
        {question} Use JSON.
        Give the answer as JSON: {question}
        Return JSON. {question}
        {question} Return the answer as a JSON object.
        Write the answer as a JSON object: {question}
        JSON please: {question}
        {question} JSON only."""),
    "json_extract": lines("""
        {sentence} Give me {keys} as JSON.
        {sentence} Write that as JSON with the keys {keys}.
        Extract {keys} as JSON: {sentence}
        Extract {keys} from this text as JSON: {sentence}
        {sentence} Return JSON with {keys}.
        Return JSON with the keys {keys}: {sentence}
        {sentence} Put {keys} into JSON.
        Make JSON with the fields {keys} from: {sentence}
        Find {keys} and write JSON. {sentence}
        {sentence} Reply with a JSON object with {keys}."""),
    "json_system": lines("""
        Answer in JSON.
        Always answer in JSON.
        Reply only with JSON.
        Respond only with a JSON object.
        Answer only with a JSON object.
        You answer in JSON.
        All answers must be JSON.
        Your output is always a JSON object.
        You are a helpful assistant that writes JSON.
        Write JSON only."""),
}
