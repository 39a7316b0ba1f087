"""Rectangles xyxy."""

Box = tuple[float, float, float, float]


def area(box: Box) -> float:
    """Of a rectangle; 0 of one that is turned inside out."""
    return max(0.0, box[2] - box[0]) * max(0.0, box[3] - box[1])


def intersection(first: Box, second: Box) -> float:
    """The area that two share."""
    return area(
        (max(first[0], second[0]), max(first[1], second[1]), min(first[2], second[2]), min(first[3], second[3]))
    )


def overlap(first: Box, second: Box) -> float:
    """Intersection over union, 0 to 1."""
    common = intersection(first, second)
    union = area(first) + area(second) - common
    return common / union if union > 0 else 0.0
