"""The words for what a demo scene shows, used both to write captions and to parse them."""

WordTable = dict[str, tuple[str, ...]]

KIND_WORDS: WordTable = {
    "dog": ("dog", "hound", "puppy"),
    "cat": ("cat", "kitten"),
    "horse": ("horse", "pony"),
    "sheep": ("sheep", "lamb"),
    "rabbit": ("rabbit", "bunny"),
    "duck": ("duck", "duckling"),
    "bird": ("bird", "songbird"),
    "boat": ("boat", "sailboat"),
    "car": ("car", "automobile"),
    "bus": ("bus", "coach"),
    "bicycle": ("bicycle", "bike"),
    "tent": ("tent",),
    "bench": ("bench",),
    "umbrella": ("umbrella", "parasol"),
    "ball": ("ball",),
    "kite": ("kite",),
    "balloon": ("balloon",),
    "person": ("coat", "jacket"),
}
# used for small ones only
YOUNG = frozenset({"puppy", "kitten", "pony", "lamb", "bunny", "duckling"})
PEOPLE = ("a person in", "someone in", "a person wearing", "someone wearing")
SIZE_WORDS: WordTable = {"small": ("small", "little"), "large": ("large", "big")}
GROUND_PHRASES: WordTable = {
    "grass": ("on the grass", "in the meadow", "on the lawn"),
    "sand": ("on the sand", "on the sandy ground"),
    "snow": ("on the snow", "on the snowy ground", "in the snow"),
    "street": ("on the street", "on the cobblestones", "on the paved street"),
    "deck": ("on the wooden deck", "on the wooden planks", "on the boardwalk"),
}
TIME_PHRASES: WordTable = {
    "morning": ("in the morning", "at sunrise", "in the early morning", "at dawn"),
    "noon": ("at noon", "at midday", "in bright daylight", "in the middle of the day"),
    "evening": ("in the evening", "at sunset", "at dusk", "in the late evening"),
    "night": ("at night", "after nightfall", "in the moonlight", "late at night"),
}
WEATHER_PHRASES: WordTable = {
    "clear": ("under a clear sky",),
    "cloudy": ("under a cloudy sky", "under passing clouds"),
    "rainy": ("in the rain", "while rain falls"),
    "snowy": ("among falling snowflakes", "while snowflakes fall"),
    "foggy": ("in the fog", "in thick fog"),
}
LANDMARK_PHRASES: WordTable = {
    "lighthouse": ("the lighthouse", "the striped lighthouse"),
    "windmill": ("the windmill", "the old windmill"),
    "castle": ("the castle", "the stone castle"),
    "pagoda": ("the pagoda", "the tall pagoda"),
    "ferris wheel": ("the ferris wheel", "the tall ferris wheel"),
    "barn": ("the barn", "the old barn"),
    "pyramid": ("the pyramid", "the ancient pyramid"),
    "clock tower": ("the clock tower", "the tall clock tower"),
    "church": ("the church", "the old church"),
    "oak": ("the oak tree", "the old oak"),
    "bridge": ("the stone bridge", "the old bridge"),
    "water tower": ("the water tower", "the tall water tower"),
}
GROUND_WORDS: WordTable = {
    "grass": ("grass", "grassy", "meadow", "lawn"),
    "sand": ("sand", "sandy"),
    "snow": ("snow", "snowy"),
    "street": ("street", "cobblestones", "cobblestone", "paved", "pavement"),
    "deck": ("deck", "planks", "boardwalk"),
}
TIME_WORDS: WordTable = {
    "morning": ("morning", "sunrise", "dawn"),
    "noon": ("noon", "midday", "daylight", "day", "daytime"),
    "evening": ("evening", "sunset", "dusk"),
    "night": ("night", "nightfall", "moonlight", "moonlit"),
}
ALL_WORDS = (
    KIND_WORDS,
    SIZE_WORDS,
    GROUND_PHRASES,
    TIME_PHRASES,
    WEATHER_PHRASES,
    LANDMARK_PHRASES,
    GROUND_WORDS,
    TIME_WORDS,
)
