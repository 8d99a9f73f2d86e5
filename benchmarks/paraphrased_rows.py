"""Short instructions in real English: each said twice in other words, beside one that differs.

``WRITTEN`` was written by hand. The others come from templates with a noun put in: another noun
gives another instruction in nearly the same words, and every template has a form that asks for
something else about the same noun. A method that counts words cannot tell the three apart; whoever
removes the second of a family and leaves the third in has understood something.
"""

from typing import NamedTuple


class Family(NamedTuple):
    """Three instructions of which the first two ask for the same."""

    original: str
    paraphrase: str
    look_alike: str


def families() -> list[Family]:
    """All of them: the written ones first."""
    made = [
        Family(*(form.format(x) for form in forms)) for forms, nouns in TEMPLATES for x in nouns
    ]
    return [*WRITTEN, *made]


_WRITTEN = """\
How can I fall asleep faster at night?
What helps someone nod off more quickly in the evening?
How can I stay awake longer at night?

Write a short note thanking a teacher.
Compose a brief message of gratitude to a teacher.
Write a short note inviting a teacher.

Why do leaves change colour in autumn?
What makes foliage turn red and yellow in the fall?
Why do leaves grow back in spring?

Name three ways to save water at home.
List three methods for using less water in the house.
Name three ways to heat water at home.

Who painted the Mona Lisa?
Which artist is the Mona Lisa by?
Who stole the Mona Lisa?

Sort these numbers from smallest to largest.
Put the following figures into ascending order.
Sort these numbers from largest to smallest.

How long should I boil an egg?
For how many minutes does an egg have to cook in water?
How long should I whisk an egg?

Explain the water cycle to a child.
Describe to a young kid how water circulates in nature.
Explain the carbon cycle to a child.

What should I wear to a job interview?
Which clothes are suitable when I am interviewed for a position?
What should I ask in a job interview?

Turn this passive sentence into an active one.
Rewrite the sentence so that it is in the active voice.
Turn this active sentence into a passive one.

How do I stop my dog from barking?
What can I do so that my dog does not bark any more?
How do I stop my dog from biting?

Give a synonym for the word happy.
Which other word means the same as happy?
Give an antonym for the word happy.

Plan a weekend trip to Rome.
Draw up an itinerary for two days in Rome.
Plan a weekend trip to Oslo.

What is the fastest land animal?
Which creature runs quicker than any other on land?
What is the slowest land animal?

Write a slogan for a coffee shop.
Think of a catchy line that advertises a cafe.
Write a menu for a coffee shop.

How do I change a flat tyre?
What are the steps for replacing a punctured tyre?
How do I check the tyre pressure?

Convert this temperature from Fahrenheit to Celsius.
Express the given Fahrenheit temperature in degrees Celsius.
Convert this temperature from Celsius to Fahrenheit.

Is it safe to eat raw fish?
Can uncooked fish be eaten without danger?
Is it safe to feed raw fish to cats?

Describe how a bill becomes a law.
By what process is a bill turned into law?
Describe how a law is struck down.

Find the spelling mistakes in this text.
Point out which words of the passage are misspelt.
Count the words in this text.

What are the symptoms of the flu?
How can you tell that somebody has influenza?
What are the causes of the flu?

How do I open a bank account?
What must I do to get an account with a bank?
How do I close a bank account?

Suggest a name for a pet parrot.
What could I call my new parrot?
Suggest a cage for a pet parrot.

Why do cats purr?
What is the reason that a cat makes a purring sound?
Why do cats hiss?

Write a function that adds two numbers.
Code a routine which returns the sum of a pair of numbers.
Write a function that multiplies two numbers.

Tell me about the first moon landing.
What happened when humans set foot on the moon for the first time?
Tell me about the last moon landing.

How can a small shop attract more customers?
In what ways might a little store bring in additional buyers?
How can a small shop attract more investors?

Make this paragraph shorter.
Condense the following paragraph.
Make this paragraph longer.

What does a heart surgeon do?
Describe the job of a cardiac surgeon.
What does a brain surgeon do?

How can I learn to swim as an adult?
What is a good way for a grown-up to pick up swimming?
How can I teach an adult to swim?

Write an apology for arriving late.
Draft a message saying sorry for not being on time.
Write an excuse for leaving early.

Which vitamins does an orange contain?
What vitamins are found in oranges?
Which vitamins does a carrot contain?

How do magnets work?
Explain what makes a magnet attract iron.
How do batteries work?

Propose a topic for a history essay.
What could an essay in history class be about?
Propose a title for a history essay.

Should I rent or buy a house?
Is it better to purchase a home than to be a tenant?
Should I sell or rent out my house?

What is the tallest mountain in the world?
Name the highest peak on Earth.
What is the tallest building in the world?

Remove all duplicates from the list.
Delete the repeated entries so that each occurs once in the list.
Count all duplicates in the list.

How do bees make honey?
By what means is honey produced by bees?
How do bees find flowers?

Give me an argument for school uniforms.
Why should pupils have to wear uniforms?
Give me an argument against school uniforms.

Tell a bedtime story about a dragon.
Make up a tale with a dragon for a child at bedtime.
Tell a bedtime story about a rabbit."""
WRITTEN = [Family(*lines.split("\n")) for lines in _WRITTEN.split("\n\n")]

NOUNS = {
    "topics": "inflation, gravity, evolution, democracy, recycling, encryption, photosynthesis",
    "cures": "a headache, a sore throat, back pain, sunburn, hiccups, a cold, insomnia",
    "skills": "chess, the violin, Spanish, knitting, juggling, photography, public speaking",
    "cities": "Paris, Tokyo, Cairo, Lisbon, Toronto, Nairobi, Sydney",
    "foods": "lasagne, pancakes, lentil soup, sushi, apple pie, guacamole, paella",
    "animals": "owls, dolphins, penguins, bats, elephants, spiders, wolves",
    "books": "Hamlet, Don Quixote, Dracula, Emma, Moby Dick, Faust, The Trial",
    "things": "a refrigerator, a jet engine, a solar panel, a printer, a microscope, a lock, radar",
    "habits": "cycling to work, working from home, fasting, meditation, rising early",
    "firms": "a bakery, a law firm, a gym, a florist, a bookshop, a dentist, a garage",
}
FORMS = {
    "topics": (
        (
            "Explain {} in simple words.",
            "Describe in plain language what {} is.",
            "Define {} in technical terms.",
        ),
        (
            "Write a quiz question about {}.",
            "Come up with a test question on {}.",
            "Answer a quiz question about {}.",
        ),
        (
            "Summarise the history of {}.",
            "Give a brief account of how {} came about.",
            "Predict the future of {}.",
        ),
    ),
    "cures": (
        ("How can I get rid of {}?", "What is a good remedy for {}?", "How did I get {}?"),
        (
            "When should I see a doctor about {}?",
            "At what point does {} call for medical help?",
            "When will the doctor ask about {}?",
        ),
    ),
    "skills": (
        ("How can I get better at {}?", "What would improve my {}?", "How can I give up {}?"),
        (
            "Recommend a book for learning {}.",
            "Which book teaches beginners {}?",
            "Review a book about the history of {}.",
        ),
    ),
    "cities": (
        (
            "What are the best sights in {}?",
            "Which attractions of {} are most worth seeing?",
            "What are the worst areas in {}?",
        ),
        (
            "How is the weather in {} in May?",
            "What is the climate of {} like during May?",
            "How is the nightlife in {} in May?",
        ),
    ),
    "foods": (
        ("Give me a recipe for {}.", "How do I cook {}?", "Give me a wine for {}."),
        (
            "If I have no oven, can I make {}?",
            "Can {} be made by me when there is no oven?",
            "If I have no fridge, can I keep {}?",
        ),
    ),
    "animals": (
        ("What do {} eat?", "Which food do {} live on?", "What eats {}?"),
        (
            "List five facts about {}.",
            "Name five interesting things about {}.",
            "List five myths about {}.",
        ),
    ),
    "books": (
        ("Who wrote {}?", "By whom was {} written?", "Who translated {}?"),
        ("Sum up the plot of {}.", "What happens in {}, in short?", "Criticise the plot of {}."),
    ),
    "things": (
        ("How does {} work?", "Explain the working principle of {}.", "How much does {} cost?"),
        ("Who invented {}?", "By whom was {} invented?", "Who repairs {}?"),
    ),
    "habits": (
        (
            "What are the benefits of {}?",
            "Name some advantages of {}.",
            "What are the drawbacks of {}?",
        ),
        ("How do I start {}?", "What is a way to take up {}?", "How do I quit {}?"),
    ),
    "firms": (
        (
            "Write an advertisement for {}.",
            "Compose an ad that promotes {}.",
            "Write a complaint about {}.",
        ),
        ("How do I start {}?", "What does it take to set up {}?", "How do I find {}?"),
    ),
}
TEMPLATES = [(forms, NOUNS[kind].split(", ")) for kind in NOUNS for forms in FORMS[kind]]
