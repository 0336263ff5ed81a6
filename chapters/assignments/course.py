"""The course: build the students' release, grade what they hand in, prove that grades are right.

    python chapters/assignments/course.py assignments               release for students
    python chapters/assignments/course.py assignments --term FILE   with your own term's numbers
    python chapters/assignments/course.py grade FOLDER              FOLDER/student/assignment1.ipynb
    python chapters/assignments/course.py prove [N ...]             wrong answers lose their points

All is written under build/course. instructors.md beside this file says how to run a course with it.
"""

import argparse
import sys

from sources import CourseError


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True)
    prove = commands.add_parser("prove", help="hold every assignment against its wrong answers")
    prove.add_argument("only", nargs="*", type=int, metavar="N", help="these assignments alone")
    options = parser.parse_args(arguments)
    try:
        from proving import prove_all

        return 1 if prove_all(options.only) else 0
    except CourseError as error:
        print(error, file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
