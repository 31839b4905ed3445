// Style sheets are files of their own beside the pages' scripts; the widget has its as a text.
declare module '*.css' {
  const text: string;
  export default text;
}
