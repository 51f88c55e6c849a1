"""The facts that the bundled model knows: small tables, common knowledge, written by hand."""

from __future__ import annotations

# country: (capital, continent)
COUNTRIES: dict[str, tuple[str, str]] = {
    "France": ("Paris", "Europe"), "Germany": ("Berlin", "Europe"), "Italy": ("Rome", "Europe"),
    "Spain": ("Madrid", "Europe"), "Portugal": ("Lisbon", "Europe"),
    "England": ("London", "Europe"), "Ireland": ("Dublin", "Europe"),
    "Austria": ("Vienna", "Europe"), "Belgium": ("Brussels", "Europe"),
    "Greece": ("Athens", "Europe"), "Poland": ("Warsaw", "Europe"),
    "Sweden": ("Stockholm", "Europe"), "Norway": ("Oslo", "Europe"),
    "Denmark": ("Copenhagen", "Europe"), "Finland": ("Helsinki", "Europe"),
    "Hungary": ("Budapest", "Europe"), "Romania": ("Bucharest", "Europe"),
    "Bulgaria": ("Sofia", "Europe"), "Croatia": ("Zagreb", "Europe"),
    "Serbia": ("Belgrade", "Europe"), "Ukraine": ("Kyiv", "Europe"),
    "Russia": ("Moscow", "Europe"), "Iceland": ("Reykjavik", "Europe"),
    "Estonia": ("Tallinn", "Europe"), "Latvia": ("Riga", "Europe"),
    "Lithuania": ("Vilnius", "Europe"), "Switzerland": ("Bern", "Europe"),
    "Japan": ("Tokyo", "Asia"), "China": ("Beijing", "Asia"), "India": ("New Delhi", "Asia"),
    "Thailand": ("Bangkok", "Asia"), "Vietnam": ("Hanoi", "Asia"), "Turkey": ("Ankara", "Asia"),
    "Iran": ("Tehran", "Asia"), "Iraq": ("Baghdad", "Asia"), "Nepal": ("Kathmandu", "Asia"),
    "Indonesia": ("Jakarta", "Asia"), "Philippines": ("Manila", "Asia"),
    "South Korea": ("Seoul", "Asia"), "Mongolia": ("Ulaanbaatar", "Asia"),
    "Egypt": ("Cairo", "Africa"), "Kenya": ("Nairobi", "Africa"),
    "Nigeria": ("Abuja", "Africa"), "Ghana": ("Accra", "Africa"),
    "Ethiopia": ("Addis Ababa", "Africa"), "Morocco": ("Rabat", "Africa"),
    "Tunisia": ("Tunis", "Africa"), "Senegal": ("Dakar", "Africa"),
    "Canada": ("Ottawa", "North America"), "Mexico": ("Mexico City", "North America"),
    "Cuba": ("Havana", "North America"), "Brazil": ("Brasilia", "South America"),
    "Argentina": ("Buenos Aires", "South America"), "Chile": ("Santiago", "South America"),
    "Peru": ("Lima", "South America"), "Colombia": ("Bogota", "South America"),
    "Venezuela": ("Caracas", "South America"), "Ecuador": ("Quito", "South America"),
    "Australia": ("Canberra", "Oceania"), "New Zealand": ("Wellington", "Oceania"),
}  # fmt: skip

COLOURS: dict[str, str] = {
    "the sky": "blue", "grass": "green", "snow": "white", "blood": "red", "a banana": "yellow",
    "coal": "black", "a carrot": "orange", "milk": "white", "a tomato": "red",
    "chocolate": "brown", "the ocean": "blue", "a lemon": "yellow", "a strawberry": "red",
    "an elephant": "grey", "a frog": "green", "a flamingo": "pink", "a crow": "black",
    "a pumpkin": "orange", "the sun": "yellow", "a polar bear": "white",
}  # fmt: skip

SOUNDS: dict[str, str] = {
    "dog": "woof", "cat": "meow", "cow": "moo", "duck": "quack", "sheep": "baa", "pig": "oink",
    "horse": "neigh", "lion": "roar", "bee": "buzz", "rooster": "cock-a-doodle-doo",
    "owl": "hoot", "frog": "ribbit", "mouse": "squeak", "snake": "hiss", "wolf": "howl",
}  # fmt: skip

LEGS: dict[str, int] = {
    "dog": 4, "cat": 4, "spider": 8, "ant": 6, "bird": 2, "horse": 4, "bee": 6, "cow": 4,
    "chicken": 2, "snake": 0, "fish": 0, "human": 2, "beetle": 6, "lion": 4, "duck": 2,
}  # fmt: skip

OPPOSITES: dict[str, str] = {
    "hot": "cold", "big": "small", "fast": "slow", "up": "down", "left": "right",
    "happy": "sad", "day": "night", "open": "closed", "old": "young", "light": "dark",
    "full": "empty", "high": "low", "good": "bad", "wet": "dry", "hard": "soft", "rich": "poor",
    "early": "late", "long": "short", "strong": "weak", "loud": "quiet", "clean": "dirty",
    "black": "white", "true": "false", "north": "south", "east": "west",
}  # fmt: skip

# (parts, whole): how many
COUNTS: dict[tuple[str, str], int] = {
    ("days", "a week"): 7, ("months", "a year"): 12, ("hours", "a day"): 24,
    ("minutes", "an hour"): 60, ("seconds", "a minute"): 60, ("weeks", "a year"): 52,
    ("days", "a year"): 365, ("years", "a century"): 100, ("years", "a decade"): 10,
    ("letters", "the English alphabet"): 26, ("colours", "a rainbow"): 7,
    ("planets", "the solar system"): 8, ("eggs", "a dozen"): 12, ("cents", "a dollar"): 100,
    ("meters", "a kilometer"): 1000, ("grams", "a kilogram"): 1000,
    ("sides", "a triangle"): 3, ("sides", "a square"): 4, ("sides", "a pentagon"): 5,
    ("sides", "a hexagon"): 6, ("wheels", "a bicycle"): 2, ("wheels", "a car"): 4,
    ("strings", "a guitar"): 6, ("strings", "a violin"): 4,
}  # fmt: skip

DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
MONTHS = ("January", "February", "March", "April", "May", "June", "July", "August", "September",
          "October", "November", "December")  # fmt: skip
