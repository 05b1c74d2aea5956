/** Files that are imported as their text. */
declare module "*.sh" {
  const text: string;
  export default text;
}
