"""Further tools, met only in the finishing steps: the easy ones are learnt by then."""

from __future__ import annotations

from engine.models.bundled.corpus.source import lines
from engine.models.bundled.corpus.tool_families import TRAIN_FAMILIES, Family

_PLACE = ("city", "location", "place", "town", "where")

FINISHING_FAMILIES: tuple[Family, ...] = (
    *TRAIN_FAMILIES,
    Family(("get_weather", "local_weather", "weather_now"), "Current weather",
           {"x": (_PLACE, "city")}, lines("""
           What's the weather in {x} now?
           What is the weather in {x} today?
           How is the weather in {x} at the moment?
           Tell me the weather in {x} this evening.
           Is it sunny in {x} right now
           How warm is it in {x} these days?"""),
           (("temperature", "int"), ("condition", "sky"))),
    Family(("read_file", "open_file", "show_file", "print_file"), "Read a file",
           {"x": (("path", "file", "filename", "name"), "file")}, lines("""
           Read the file {x}.
           Open {x}
           Show me {x}.
           What is in {x}?
           Print the file {x}
           Can you open the file {x}?"""), (("size", "int"), ("status", "status"))),
    Family(("upload_file", "remove_file", "archive_file"), "Change a file",
           {"x": (("path", "file", "source"), "file")}, lines("""
           Upload {x}.
           Remove {x}
           Archive the file {x}.
           Get rid of {x}.
           Please take away the file {x}"""), (("status", "status"),)),
    Family(("copy_file", "move_file", "rename_file"), "Copy or move a file",
           {"x": (("source", "from", "path"), "file"), "y": (("target", "to", "new_name"), "file")},
           lines("""
           Copy {x} to {y}.
           Move {x} to {y}
           Rename {x} to {y}.
           Change the name of {x} to {y}"""), (("status", "status"),)),
    Family(("text_person", "notify", "write_to", "chat_message"), "Write to a person",
           {"x": (("recipient", "person", "name", "to"), "name"),
            "y": (("text", "message", "body", "content"), "words")}, lines("""
           Text {x}: {y}
           Tell {x} this: {y}
           Write to {x}: {y}
           Send {x} a note that says {y}.
           Let {x} know {y}.
           Message for {x}: {y}"""), (("status", "status"), ("id", "int"))),
    Family(("countdown", "start_countdown", "timer", "cook_timer"), "Start a countdown",
           {"x": (("seconds", "length", "duration", "time"), "int")}, lines("""
           Count down {x} seconds.
           Begin a countdown of {x} seconds.
           Timer for {x} seconds please
           I need a countdown of {x} seconds.
           Ring in {x} minutes.
           Give me a timer with {x} minutes."""), (("status", "status"), ("id", "int"))),
    Family(("set_temperature", "heat", "thermostat"), "Set the heating",
           {"x": (("degrees", "temperature", "value"), "small"), "y": (("room", "area"), "room")},
           lines("""
           Set the {y} to {x} degrees.
           Heat the {y} to {x} degrees.
           Make it {x} degrees in the {y}"""), (("status", "status"),)),
    Family(("find_hotel", "search_hotels", "hotel_search"), "Find a hotel",
           {"x": (_PLACE, "city")}, lines("""
           Find a hotel in {x}.
           I need a hotel in {x}.
           I want to stay in {x}.
           Show hotels in {x}
           I am looking for a room in {x}
           Where can I sleep in {x}?"""), (("name", "name"), ("price", "int"))),
    Family(("city_info", "get_area", "get_mayor", "city_facts"), "Facts about a city",
           {"x": (_PLACE, "city")}, lines("""
           How big is {x}?
           What is the area of {x}?
           How old is the city of {x}?
           Who is the mayor of {x}?
           What is the size of {x}?"""), (("area", "int"), ("mayor", "name"))),
    Family(("find_route", "directions", "get_distance"), "The way between two cities",
           {"x": (("from", "start", "origin"), "city"), "y": (("to", "goal", "destination"),
            "city")}, lines("""
           How far is it from {x} to {y}?
           Show me the way from {x} to {y}.
           How do I get from {x} to {y}?
           Find a route from {x} to {y}"""), (("km", "int"), ("minutes", "int"))),
    Family(("air_quality", "check_air", "smog_level"), "Quality of the air",
           {"x": (_PLACE, "city")}, lines("""
           How is the air in {x}?
           Is the air clean in {x}?
           Tell me about the air in {x}.
           Give me the air quality of {x}
           Is there smog in {x} now?"""), (("index", "int"), ("condition", "sky"))),
    Family(("track_parcel", "find_parcel", "shipment", "get_ticket"), "Find a parcel or a ticket",
           {"x": (("code", "number", "parcel_id", "reference"), "code")}, lines("""
           Follow the parcel {x}.
           Where is the parcel {x}?
           Find shipment {x}.
           What happened to {x}?
           Trace the shipment {x}"""), (("status", "status"), ("place", "city"))),
    Family(("define", "dictionary", "get_recipe", "read_news"), "Look something up",
           {"x": (("word", "term", "topic", "subject"), "words")}, lines("""
           Define {x}.
           Read me something about {x}.
           What is written about {x}?
           I want to read about {x}
           Give me the entry on {x}."""), (("text", "words"), ("page", "int"))),
    Family(("remind", "add_reminder", "note_down"), "Remember something for later",
           {"x": (("text", "what", "note"), "words"), "y": (("time", "when", "at"), "time")},
           lines("""
           Remind me at {y} of {x}.
           Remind me of {x} at {y}.
           Note {x} for {y}
           At {y} remind me: {x}"""), (("status", "status"),)),
)  # fmt: skip
