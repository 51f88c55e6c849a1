"""Tool definitions for training and, with other names and phrasings, for the exam."""

from __future__ import annotations

from dataclasses import dataclass

from engine.models.bundled.corpus.source import lines, terms


@dataclass(frozen=True)
class Family:
    """Tools that do one thing under several names.

    `params` maps a slot of the questions to its possible parameter names and its kind of value
    (see `tools.value`). `results` are the keys that an answer of the tool may have.
    """

    names: tuple[str, ...]
    description: str
    params: dict[str, tuple[tuple[str, ...], str]]
    asks: tuple[str, ...]
    results: tuple[tuple[str, str], ...]


_CITY = ("city", "location", "place", "town")

TRAIN_FAMILIES: tuple[Family, ...] = (
    Family(("get_weather", "weather", "current_weather", "weather_lookup"), "Weather of a city",
           {"x": (_CITY, "city")}, lines("""
           What is the weather in {x}?
           What's the weather like in {x}
           How is the weather in {x}?
           Tell me the weather in {x}.
           Weather in {x}?
           Is it raining in {x}?
           How warm is it in {x}?
           Check the weather for {x}.
           Is it cold in {x} today?"""),
           (("temperature", "int"), ("condition", "sky"), ("humidity", "int"))),
    Family(("calculator", "calculate", "calc", "evaluate", "math"), "Calculate an expression",
           {"x": (("expression", "formula", "input", "expr"), "expression")}, lines("""
           Calculate {x}.
           What is {x}?
           Compute {x}
           How much is {x}?
           Use the calculator: {x}
           Work out {x}.
           Evaluate {x}."""), (("result", "int"),)),
    Family(("search", "web_search", "search_web", "find_pages"), "Search the web",
           {"x": (("query", "q", "text", "terms"), "words")}, lines("""
           Search for {x}.
           Search the web for {x}.
           Look up {x}
           Find pages about {x}.
           Do a search for {x}.
           Search {x}
           Can you look up {x} online?"""), (("title", "words"), ("hits", "int"))),
    Family(("convert_currency", "exchange", "currency_converter"), "Convert money",
           {"x": (("amount", "value", "sum"), "int"), "y": (("from", "source", "from_currency"),
            "currency"), "z": (("to", "target", "to_currency"), "currency")}, lines("""
           Convert {x} {y} to {z}.
           How much is {x} {y} in {z}?
           Change {x} {y} into {z}.
           What are {x} {y} in {z}?
           Exchange {x} {y} to {z}"""), (("amount", "int"), ("rate", "int"))),
    Family(("get_time", "current_time", "clock", "time_in"), "Time in a city",
           {"x": (("city", "location", "zone"), "city")}, lines("""
           What time is it in {x}?
           Tell me the time in {x}.
           What is the time in {x}
           Time in {x}?
           How late is it in {x}?"""), (("time", "time"),)),
    Family(("send_email", "email", "send_mail", "mail_to"), "Send an email",
           {"x": (("to", "recipient", "address"), "email"), "y": (("subject", "title", "topic"),
            "words")}, lines("""
           Send an email to {x} about {y}.
           Email {x} with the subject {y}.
           Write a mail to {x}, subject {y}.
           Mail {x} about {y}"""), (("status", "status"),)),
    Family(("set_alarm", "alarm", "wake_up"), "Set an alarm",
           {"x": (("time", "at", "when"), "time")}, lines("""
           Set an alarm for {x}.
           Wake me up at {x}.
           I need an alarm at {x}
           Alarm at {x} please."""), (("status", "status"),)),
    Family(("get_stock_price", "stock_price", "quote"), "Price of a stock",
           {"x": (("symbol", "ticker", "stock"), "symbol")}, lines("""
           What is the stock price of {x}?
           How is {x} stock doing?
           Price of the {x} stock
           Get the stock price for {x}."""), (("price", "int"), ("change", "int"))),
    Family(("create_event", "add_event", "schedule", "new_meeting"), "Create a calendar event",
           {"x": (("title", "name", "event"), "words"), "y": (("date", "day", "on"), "date")},
           lines("""
           Create an event {x} on {y}.
           Add {x} to my calendar on {y}.
           Schedule {x} for {y}.
           Plan {x} on {y}"""), (("status", "status"), ("id", "int"))),
    Family(("play_music", "play", "play_song", "music_player"), "Play music",
           {"x": (("song", "title", "artist"), "words")}, lines("""
           Play {x}.
           Play the song {x}.
           I want to hear {x}.
           Put on {x}"""), (("status", "status"),)),
    Family(("translate", "translate_text", "translator"), "Translate a text",
           {"x": (("text", "phrase", "input"), "words"), "y": (("language", "to", "target"),
            "language")}, lines("""
           Translate {x} to {y}.
           Translate "{x}" into {y}.
           How do you say {x} in {y}?
           What is "{x}" in {y}?"""), (("translation", "words"),)),
    Family(("set_light", "switch_light", "light", "turn_light"), "Switch a light",
           {"x": (("room", "where", "area"), "room"), "y": (("state", "mode", "value"), "onoff")},
           lines("""
           Turn the light in the {x} {y}.
           Switch {y} the light in the {x}.
           Turn {y} the {x} light.
           Light in the {x} {y}"""), (("status", "status"),)),
    Family(("get_user", "lookup_user", "find_user", "user_info"), "Look up a user",
           {"x": (("user_id", "id", "user"), "id")}, lines("""
           Look up user {x}.
           Get the user with id {x}.
           Who is user {x}?
           Show me user {x}
           Find user number {x}."""), (("name", "name"), ("age", "int"), ("city", "city"))),
    Family(("get_order", "order_status", "check_order"), "Status of an order",
           {"x": (("order_id", "order", "number"), "code")}, lines("""
           Where is my order {x}?
           What is the status of order {x}?
           Check order {x}.
           Has order {x} been sent?"""), (("status", "status"), ("days", "int"))),
    Family(("book_table", "reserve_table", "reserve"), "Book a table",
           {"x": (("people", "guests", "seats"), "small"), "y": (("time", "at"), "time")},
           lines("""
           Book a table for {x} people at {y}.
           Reserve a table for {x} at {y}.
           I need a table for {x} guests at {y}"""), (("status", "status"), ("table", "int"))),
    Family(("random_number", "pick_number", "random_int"), "Random number in a range",
           {"x": (("min", "low", "start"), "small"), "y": (("max", "high", "end"), "int")},
           lines("""
           Give me a random number between {x} and {y}.
           Pick a number from {x} to {y}.
           Random number between {x} and {y}"""), (("number", "int"),)),
)  # fmt: skip

HELDOUT_FAMILIES: tuple[Family, ...] = (
    Family(("get_weather",), "Get the weather", {"x": (("city",), "city")}, lines("""
           Can you tell me the weather in {x}?
           What's the weather in {x} right now?"""),
           (("temperature", "int"), ("condition", "sky"))),
    Family(("get_forecast",), "Weather forecast of a place", {"x": (("location",), "city")},
           lines("""
           What is the forecast for {x}?
           Please get the forecast for {x}."""), (("forecast", "sky"), ("temperature", "int"))),
    Family(("calculator",), "Evaluate a math expression", {"x": (("expression",), "expression")},
           lines("""
           Please use the calculator for {x}
           Can you calculate {x}?"""), (("result", "int"),)),
    Family(("track_package",), "Track a package", {"x": (("tracking_number",), "code")}, lines("""
           Track package {x}.
           Where is the package {x}?"""), (("status", "status"), ("location", "city"))),
    Family(("search",), "Search the web", {"x": (("query",), "words")}, lines("""
           Can you search for {x}?
           Please search the web for {x}."""), (("title", "words"),)),
    Family(("convert_currency",), "Convert an amount of money",
           {"x": (("amount",), "int"), "y": (("from_currency",), "currency"),
            "z": (("to_currency",), "currency")}, lines("""
           Please convert {x} {y} to {z}.
           Can you convert {x} {y} into {z}?"""), (("amount", "int"),)),
    Family(("set_timer",), "Set a timer", {"x": (("minutes",), "int")}, lines("""
           Set a timer for {x} minutes.
           Start a timer of {x} minutes."""), (("status", "status"),)),
    Family(("get_population",), "Population of a city", {"x": (("city",), "city")}, lines("""
           What is the population of {x}?
           How many people live in {x}?"""), (("population", "int"),)),
    Family(("find_restaurant",), "Find a restaurant in a city", {"x": (("city",), "city")},
           lines("""
           Find a restaurant in {x}.
           I am looking for a restaurant in {x}."""), (("name", "name"), ("rating", "small"))),
    Family(("send_message",), "Send a message to a person", {"x": (("recipient",), "name"),
            "y": (("text",), "words")}, lines("""
           Send {x} the message {y}.
           Send a message to {x}: {y}"""), (("status", "status"),)),
    Family(("delete_file",), "Delete a file", {"x": (("path",), "file")}, lines("""
           Delete the file {x}.
           Please delete {x}."""), (("status", "status"),)),
)  # fmt: skip

VERBS = terms("""
    create delete update open close start stop check get find list print copy move lock unlock
    rename archive share publish cancel approve review test export import load save count
    repair order rent paint clean measure scan label sort merge split record upload
""")
PARAM_NAMES = terms("""
    id name number label color size level code type user amount count title key tag owner
    region version priority status value path quantity model unit
""")
# {v} verb, {n} noun, {p} "param value" pairs; {x} the bare value of a single parameter.
COMPOSED_ASKS = lines("""
    {v} the {n} with {p}
    {v} the {n} with {p}.
    {v} a {n} with {p}.
    {v} {n} with {p}
    Please {v} the {n} with {p}.
    Can you {v} the {n} with {p}?
    I want to {v} the {n} with {p}.
    {v} the {n}, {p}.
    I need you to {v} a {n}: {p}
    Could you {v} the {n}? {p}""")
COMPOSED_SINGLE_ASKS = lines("""
    {v} the {n} {x}
    {v} {n} {x}.
    Please {v} the {n} {x}.
    Can you {v} {n} {x}?
    {v} the {n} for {x}.
    I want to {v} the {n} {x}.""")
HELDOUT_COMPOSED_ASKS = lines("""
    Please {v} a {n} with {p}.
    Could you {v} the {n} with {p}?
    I would like to {v} the {n} with {p}.""")
