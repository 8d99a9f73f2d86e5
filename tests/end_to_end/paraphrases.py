"""Hand-made pairs of short rows: the same asked in other words, and others that only look alike."""

PARAPHRASES = [
    ("How do I reset my password?", "What are the steps to reset my password?"),
    ("Explain how photosynthesis works.", "Describe the process of photosynthesis."),
    ("Write a poem about the sea.", "Compose a poem about the ocean."),
    ("What is the capital city of France?", "Which city is the capital of France?"),
    ("Give me tips for sleeping better.", "How can I improve my sleep?"),
    ("Summarise the following article in one paragraph.", "Sum up this article in a paragraph."),
    ("Translate this sentence into Spanish.", "Render the following sentence in Spanish."),
    ("How can I learn to play the guitar?", "What is a good way to learn playing guitar?"),
    ("List the planets of the solar system.", "Name the planets in our solar system."),
    ("Why is the sky blue?", "What makes the sky look blue?"),
    ("Write a function that reverses a string.", "Code a function to reverse a string."),
    ("How do vaccines protect us from disease?", "In what way do vaccines guard against illness?"),
    ("Suggest a recipe with chicken and rice.", "Give me a recipe that uses rice and chicken."),
    ("What causes earthquakes?", "Why do earthquakes happen?"),
    ("How do I remove a red wine stain?", "What is the best way to get red wine stains out?"),
    ("Explain inflation to a child.", "How would you explain inflation to a young kid?"),
    ("Draft an email asking for a day off.", "Write an email to request a day of leave."),
    ("What are the benefits of regular exercise?", "Name advantages of exercising regularly."),
    ("Who wrote the play Hamlet?", "Who is the author of Hamlet?"),
    ("Tell me a joke about cats.", "Share a funny joke about a cat."),
]
"""Either row of a pair makes the other unnecessary."""

LOOK_ALIKES = [
    ("How do I reset my password?", "How do I reset my router?"),
    ("Explain how photosynthesis works.", "Explain how cellular respiration works."),
    ("Write a poem about the sea.", "Write an essay about the sea."),
    ("What is the capital city of France?", "What is the largest river of France?"),
    ("Give me tips for sleeping better.", "Give me tips for staying awake."),
    ("Summarise the following article in one paragraph.", "Translate this article into French."),
    ("Translate this sentence into Spanish.", "Translate this sentence into Portuguese."),
    ("How can I learn to play the guitar?", "How can I learn to play the piano?"),
    ("List the planets of the solar system.", "List the moons of the planet Jupiter."),
    ("Why is the sky blue?", "Why is the sunset red?"),
    ("Write a function that reverses a string.", "Write a function that reverses a list."),
    ("How do vaccines protect us from disease?", "How do antibiotics cure us of disease?"),
    ("Suggest a recipe with chicken and rice.", "Suggest a recipe with beef and potatoes."),
    ("What causes earthquakes?", "What causes hurricanes?"),
    ("How do I remove a red wine stain?", "How do I remove a blood stain?"),
    ("Is the number even?", "Is the number odd?"),
    ("Draft an email asking for a day off.", "Draft an email granting a day off."),
    ("What are the benefits of regular exercise?", "What are the risks of regular exercise?"),
    ("Who wrote the play Hamlet?", "Who wrote the play Faust?"),
    ("Convert Celsius to Fahrenheit.", "Convert Fahrenheit to Celsius."),
]
"""Losing either row of a pair would lose something."""
