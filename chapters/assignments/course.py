"""The course: build the students' release, grade what they hand in, prove that grades are right.

    python chapters/assignments/course.py assignments               release for students
    python chapters/assignments/course.py assignments --term FILE   with your own term's numbers
    python chapters/assignments/course.py grade FOLDER              FOLDER/student/assignment1.ipynb
    python chapters/assignments/course.py hand FILE                 points for answers in words
    python chapters/assignments/course.py prove [N ...]             wrong answers lose their points

All is written under build/course. instructors.md beside this file says how to run a course with it.
"""

import argparse
import sys
from pathlib import Path

from grades import feedback, grade, hand
from release import BUILD, assignments, sample
from sources import HERE, SAMPLE_TERM, CourseError, numbers


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True)
    release = commands.add_parser("assignments", help="write the release for students")
    release.add_argument("--term", type=Path, default=SAMPLE_TERM, help="this term's numbers, TOML")
    grading = commands.add_parser("grade", help="grade a folder of submissions")
    grading.add_argument("submitted", type=Path, help="holds student/assignmentN.ipynb")
    grading.add_argument("--workers", type=int, default=2, help="submissions at a time")
    by_hand = commands.add_parser("hand", help="enter points for answers in words")
    text = "a filled in copy of by_hand.csv; left out, if points were entered in the formgrader"
    by_hand.add_argument("file", type=Path, nargs="?", help=text)
    for command in (release, grading, by_hand):
        command.add_argument("--build", type=Path, default=BUILD, help="the folder that is written")
    for command in (release, grading):
        command.add_argument("--only", nargs="+", type=int, metavar="N", help="these assignments")
    example = commands.add_parser("sample", help="write the repository's sample submissions anew")
    example.add_argument("--folder", type=Path, default=HERE / "sample")
    example.add_argument("--build", type=Path, default=BUILD, help="holds the release")
    prove = commands.add_parser("prove", help="hold every assignment against its wrong answers")
    prove.add_argument("only", nargs="*", type=int, metavar="N", help="these assignments alone")
    options = parser.parse_args(arguments)
    try:
        if unknown := set(getattr(options, "only", None) or ()) - set(numbers()):
            raise CourseError(f"there is no assignment {min(unknown)}")
        if options.command == "assignments":
            assignments(options.term, options.build.resolve(), options.only or numbers())
        elif options.command == "grade":
            build = options.build.resolve()
            if not grade(options.submitted, build, options.only, options.workers):
                return 1
        elif options.command == "sample":
            sample(options.folder, options.build.resolve())
        elif options.command == "hand":
            build = options.build.resolve()
            hand(options.file, build) if options.file else feedback(build)
        else:
            from proving import prove_all

            return 1 if prove_all(options.only) else 0
    except CourseError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
