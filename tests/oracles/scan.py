"""What SCAN's commands mean, by cutting at words: a second interpreter."""


def actions(command: str) -> list[str]:
    for joint in (" and ", " after "):
        if joint in command:
            first, second = command.split(joint)
            one, two = actions(first), actions(second)
            return one + two if joint == " and " else two + one
    for times, n in ((" twice", 2), (" thrice", 3)):
        if command.endswith(times):
            return actions(command[: -len(times)]) * n
    words = command.split(" ")
    act = [] if words[0] == "turn" else ["I_" + words[0].upper()]
    if len(words) == 1:
        return act
    turn = ["I_TURN_" + words[-1].upper()]
    if "around" in words:
        return (turn + act) * 4
    return turn * len(words[1:]) + act
