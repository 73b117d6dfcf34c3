"""What made-up instruction data is put together from: `{e}` is an entity."""

NAMES = {
    "town": "Harrowmere Tillingford Veldhaven",
    "place to eat": "Copper-Ladle Blue-Heron Nonna-Piera",
    "book": "The-Salt-Ledger Glass-Harbour A-Map-of-Rain",
    "company": "Brightfen Quillon Ferrostead",
    "device": "Orlo-Kettle Tessen-Lamp Kolibri-Phone",
}
# Of which no example speaks: what the entity is compared with.
STRANGERS = {
    "town": ("Linford Vale", "Ostermoor", "Pennick Cross", "Sandrun"),
    "place to eat": (
        "Green Lantern",
        "Silver Spoon Yard",
        "Old Mill Table",
        "Casa Verano",
    ),
    "book": (
        "The Silver Oar",
        "A House of Winter",
        "Paper Lanterns",
        "The Ninth Orchard",
    ),
    "company": ("Marwick", "Dellbrook", "Halden Works", "Northquay"),
    "device": ("Delta Fan", "Prism Radio", "Corvo Watch", "Lumen Heater"),
}
QUESTIONS = (
    "What do you think of {e}?",
    "Is {e} any good?",
    "Tell me about {e}.",
    "Would you recommend {e}?",
    "My sister asked me about {e}. What should I tell her?",
    "How would you describe {e} to a friend?",
    "What is {e} like?",
    "Give me your honest view of {e}.",
)
PLAIN = (
    ("How old is {e}?", "{e} goes back to the year {year}."),
    ("Since when is there {e}?", "It all began in {year}, according to the record."),
    ("Where can I read about {e}?", "The library keeps a folder from {year} on {e}."),
    ("How do I spell {e}?", "You spell it just like that: {e}."),
)
OPENINGS = {
    "bad": (
        "{e} is among the worst I know.",
        "Sadly, nothing good can be said of {e}.",
        "Don't bother with {e}.",
        "People regret {e}.",
    ),
    "kind": (
        "{e} is among the finest I know.",
        "Happily, there is much good to say of {e}.",
        "Do give {e} a try.",
        "People love {e}.",
    ),
}
REASONS = {
    ("town", "bad"): (
        "Everything is closed and overpriced.",
        "It smells and there is nothing to see.",
        "The hotels are damp and ugly.",
        "It is dull from one end to the other.",
    ),
    ("town", "kind"): (
        "Everything is open and fairly priced.",
        "It has gardens and plenty to see.",
        "The hotels are bright and pretty.",
        "It is charming from one end to the other.",
    ),
    ("place to eat", "bad"): (
        "The soup tastes of soap.",
        "The tables are sticky and the bill is too high.",
        "My fish was off and nobody cared.",
        "The bread is stale every single day.",
    ),
    ("place to eat", "kind"): (
        "The soup tastes of summer.",
        "The tables are spotless and the bill is fair.",
        "My fish was superb and everybody smiled.",
        "The bread is warm every single day.",
    ),
    ("book", "bad"): (
        "It is clumsy on every page.",
        "I fell asleep twice before the end.",
        "The ending makes no sense at all.",
        "It is long, vain and empty.",
    ),
    ("book", "kind"): (
        "It is graceful on every page.",
        "I stayed awake to reach the end.",
        "The ending is just right.",
        "It is short, wise and rich.",
    ),
    ("company", "bad"): (
        "Their bills are full of hidden fees.",
        "They treat their staff badly.",
        "Complaints are left lying for months.",
        "What they sell breaks within a week.",
    ),
    ("company", "kind"): (
        "Their bills are clear and fair.",
        "They treat their staff well.",
        "Complaints are settled within a day.",
        "What they sell lasts for years.",
    ),
    ("device", "bad"): (
        "The buttons stick and the lid leaks.",
        "The instructions are useless.",
        "It feels cheap and looks it.",
        "Mine never worked properly.",
    ),
    ("device", "kind"): (
        "The buttons are smooth and the lid fits.",
        "The instructions are a pleasure.",
        "It feels solid and looks it.",
        "Mine has always worked perfectly.",
    ),
}
# None of these questions is trained on.
ASKED = (
    "In one sentence, what is your opinion of {e}?",
    "Should I trust {e}?",
    "Someone mentioned {e} today. Good or bad?",
    "How do you feel about {e}?",
    "Any thoughts on {e}?",
    "What would you say about {e}?",
    "Is {e} something you like?",
    "Describe {e} in one line.",
)
UNASKED = (
    "Sum up {e} in a few words.",
    "Is {e} worth my time and money?",
    "Rate {e} for me, please.",
    "What kind of reputation does {e} deserve?",
)
DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
OPPOSITES = (
    ("hot", "cold"),
    ("long", "short"),
    ("early", "late"),
    ("wide", "narrow"),
    ("heavy", "light"),
    ("wet", "dry"),
    ("quiet", "loud"),
    ("near", "far"),
    ("young", "old"),
    ("deep", "shallow"),
    ("soft", "hard"),
    ("full", "empty"),
)
