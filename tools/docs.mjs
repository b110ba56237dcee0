/**
 * What typedoc does not do by itself for this API; its options are in typedoc.json.
 *
 * The functions of the namespaces `symmetry`, `ops`, `layers`, `losses`, `models` and `predictions` are shorthand properties of
 * an object, which typedoc takes for variables of a function type: here they become functions, with their docstrings. And every
 * property of an interface or a class must have a docstring of its own; those of an object type are told where it stands.
 * Formulas keep their lines.
 */
import { Application, Converter, ReflectionFlag, ReflectionKind, ReflectionType } from "typedoc";

/**
 * Formulas and lists of a docstring, which are indented by two spaces or more, keep their lines.
 *
 * @param {import("typedoc").CommentDisplayPart[]} parts
 */
function withFormulas(parts) {
  const out = [];
  for (const part of parts) {
    const last = out.at(-1);
    const isWords = part.kind === "text" || (part.kind === "code" && !part.text.startsWith("```"));
    if (isWords && last?.kind === "text") last.text += part.text;
    else out.push(isWords ? { kind: "text", text: part.text } : part);
  }
  for (const part of out)
    if (part.kind === "text")
      part.text = part.text.replace(
        /(?<=^|\n)((?: {2,}\S.*(?:\n|$))+)/g,
        (formula) => `\`\`\`text\n${formula.replaceAll("`", "").trimEnd()}\n\`\`\`\n`,
      );
  return out;
}

/** @param {import("typedoc").Application} app */
export function load(app) {
  app.converter.on(Converter.EVENT_RESOLVE_BEGIN, ({ project }) => {
    for (const variable of project.getReflectionsByKind(ReflectionKind.Variable)) {
      if (!variable.parent?.kindOf(ReflectionKind.Namespace)) continue;
      if (!(variable.type instanceof ReflectionType)) continue;
      const { declaration } = variable.type;
      if (declaration.signatures?.length !== 1 || declaration.children !== undefined) continue;
      const [signature] = declaration.signatures;
      signature.comment ??= variable.comment;
      signature.name = variable.name;
      signature.parent = variable;
      // `...surplus: never[]` is there so that a compiler refuses a third operand
      signature.parameters = signature.parameters?.filter(({ name }) => name !== "surplus");
      variable.kind = ReflectionKind.Function;
      variable.signatures = [signature];
      variable.setFlag(ReflectionFlag.Readonly, false);
      delete variable.type;
      delete variable.comment;
      delete declaration.signatures;
      project.removeReflection(declaration);
    }
    for (const { comment } of Object.values(project.reflections))
      if (comment) comment.summary = withFormulas(comment.summary);
  });
  app.on(Application.EVENT_VALIDATE_PROJECT, (project) => {
    for (const property of project.getReflectionsByKind(ReflectionKind.Property)) {
      if (property.parent?.kindOf(ReflectionKind.ClassOrInterface) && !property.hasComment())
        app.logger.validationWarning(`${property.getFullName()} does not have any documentation`);
    }
  });
}
